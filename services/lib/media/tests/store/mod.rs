//! An S3 store that answers as it is told: raw HTTP/1.1 over TCP, because most faults are below HTTP.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use media::{Credentials, S3Config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// One answer.
#[derive(Clone)]
pub(crate) enum Answer {
    /// 200 with this body, the tag `tag-1` and the version `v1`.
    Whole(&'static [u8]),
    /// An S3 error of this status and code.
    Error(u16, &'static str),
    /// 200 whose body ends before its length, by an orderly end of the connection.
    Short { declared: u64, sent: usize },
    /// The same, by a reset.
    Reset { declared: u64, sent: usize },
    /// 200 without a length: so many chunks of 64 KiB.
    Endless { chunks: usize },
    /// Another place.
    Redirect(u16, String),
    /// Reads the request and says nothing.
    Silent,
    /// A head and one byte, then nothing.
    Stalled,
    /// A listing of these keys.
    Pages { keys: Vec<String>, per_page: usize },
    /// Whatever a multipart upload asks for.
    Multipart,
}

/// The store; ends with its value.
pub(crate) struct FaultStore {
    address: std::net::SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    seen: Arc<Seen>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    heads: Mutex<Vec<String>>,
    bodies: Mutex<Vec<Vec<u8>>>,
}

impl FaultStore {
    /// Serves on a port of its own; each request takes the next answer, the last one for ever.
    pub(crate) async fn start(answers: Vec<Answer>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(Seen::default()));
        let (stop, stopped) = oneshot::channel();
        let shared = (Arc::clone(&connections), Arc::clone(&seen));
        // A thread and runtime of its own: it must answer while a test blocks, and end when it says so.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! { () = serve(listener, answers, shared) => {}, _ = stopped => {} }
            });
        });
        Self { address, connections, seen, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.seen.heads.lock().unwrap().len()
    }

    /// Whether a request's head held this text.
    pub(crate) fn saw(&self, text: &str) -> bool {
        self.seen.heads.lock().unwrap().iter().any(|head| head.contains(text))
    }

    /// The requests' bodies.
    pub(crate) fn bodies(&self) -> Vec<Vec<u8>> {
        self.seen.bodies.lock().unwrap().clone()
    }

    /// A client's settings with short times.
    pub(crate) fn config(&self) -> S3Config {
        S3Config {
            endpoint: Some(self.url()),
            region: "us-east-1".to_owned(),
            path_style: true,
            credentials: Credentials::Keys {
                access_key_id: "key".to_owned(),
                secret_access_key: ops::config::Secret::new("secret"),
                session_token: None,
            },
            expected_bucket_owner: None,
            connect_timeout: Duration::from_secs(1),
            attempt_timeout: Duration::from_millis(500),
            operation_timeout: Duration::from_secs(20),
            stall_timeout: Duration::from_millis(400),
            connections_max: 8,
            object_bytes_max: 1 << 20,
            bytes_in_flight_max: 4 << 20,
            attempts_max: 3,
            retry_ratio: 0.1,
            retry_reserve: 10,
            backoff_base: Duration::from_millis(1),
            backoff_max: Duration::from_millis(2),
            prefix_objects_max: 1_000,
        }
    }
}

impl Drop for FaultStore {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

async fn serve(listener: TcpListener, answers: Vec<Answer>, shared: (Arc<AtomicUsize>, Arc<Seen>)) {
    let next = Arc::new(AtomicUsize::new(0));
    let answers = Arc::new(answers);
    let mut open = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        shared.0.fetch_add(1, Ordering::SeqCst);
        let (next, answers, seen) = (Arc::clone(&next), Arc::clone(&answers), Arc::clone(&shared.1));
        open.spawn(async move {
            // The client may hang up at any time; that is its right.
            drop(connection(stream, &next, &answers, &seen).await);
        });
    }
}

async fn connection(
    mut stream: TcpStream,
    next: &AtomicUsize,
    answers: &[Answer],
    seen: &Seen,
) -> std::io::Result<()> {
    let mut read = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&read[..end]).into_owned();
        let length = header(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        if header(&head, "expect").is_some() {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        while read.len() < end + length {
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        }
        seen.bodies.lock().unwrap().push(read[end..end + length].to_vec());
        seen.heads.lock().unwrap().push(head.clone());
        read.drain(..end + length);
        let index = next.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
        if !answer(&mut stream, &answers[index], &head).await? {
            return Ok(());
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
}

/// Whether the connection goes on.
async fn answer(stream: &mut TcpStream, answer: &Answer, head: &str) -> std::io::Result<bool> {
    const PINS: &str = "ETag: \"tag-1\"\r\nx-amz-version-id: v1\r\n";
    match answer {
        Answer::Whole(body) => {
            let head = format!("HTTP/1.1 200 OK\r\n{PINS}Content-Length: {}\r\n\r\n", body.len());
            stream.write_all(&[head.as_bytes(), body].concat()).await?;
        }
        Answer::Error(status, code) => {
            let body = format!("<Error><Code>{code}</Code><Message>as told</Message></Error>");
            let length = body.len();
            let head = format!("HTTP/1.1 {status} As Told\r\nContent-Length: {length}\r\n\r\n{body}");
            stream.write_all(head.as_bytes()).await?;
        }
        Answer::Short { declared, sent } | Answer::Reset { declared, sent } => {
            let head = format!("HTTP/1.1 200 OK\r\n{PINS}Content-Length: {declared}\r\n\r\n");
            stream.write_all(&[head.as_bytes(), &vec![7; *sent]].concat()).await?;
            stream.flush().await?;
            if matches!(answer, Answer::Reset { .. }) {
                stream.set_zero_linger()?;
            }
            return Ok(false);
        }
        Answer::Endless { chunks } => {
            let head = format!("HTTP/1.1 200 OK\r\n{PINS}Transfer-Encoding: chunked\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            for _ in 0..*chunks {
                stream.write_all(&[&b"10000\r\n"[..], &[7; 0x10000], b"\r\n"].concat()).await?;
            }
            stream.write_all(b"0\r\n\r\n").await?;
        }
        Answer::Redirect(status, to) => {
            let head = format!("HTTP/1.1 {status} Elsewhere\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
        }
        Answer::Silent => std::future::pending().await,
        Answer::Stalled => {
            let head = format!("HTTP/1.1 200 OK\r\n{PINS}Content-Length: 1000\r\n\r\nx");
            stream.write_all(head.as_bytes()).await?;
            std::future::pending::<()>().await;
        }
        Answer::Pages { keys, per_page } => {
            let body = page(keys, *per_page, head);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(head.as_bytes()).await?;
        }
        Answer::Multipart => {
            let body = if head.contains("?uploads") {
                "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>"
            } else if head.starts_with("POST") {
                "<CompleteMultipartUploadResult><ETag>\"tag-1\"</ETag></CompleteMultipartUploadResult>"
            } else {
                ""
            };
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\n{PINS}Content-Length: {length}\r\n\r\n{body}");
            stream.write_all(head.as_bytes()).await?;
        }
    }
    Ok(true)
}

/// One page of a listing; the continuation token is the index of its first key.
fn page(keys: &[String], per_page: usize, head: &str) -> String {
    let token = head.split("continuation-token=").nth(1);
    let from = token.and_then(|rest| rest.split([' ', '&']).next()?.parse().ok()).unwrap_or(0);
    let until = (from + per_page).min(keys.len());
    let entry = |key: &String| {
        format!("<Contents><Key>{key}</Key><Size>9</Size><ETag>&quot;tag-{key}&quot;</ETag></Contents>")
    };
    let entries: String = keys[from..until].iter().map(entry).collect();
    let more = until < keys.len();
    let next =
        if more { format!("<NextContinuationToken>{until}</NextContinuationToken>") } else { String::new() };
    format!("<ListBucketResult><IsTruncated>{more}</IsTruncated>{next}{entries}</ListBucketResult>")
}
