//! A small S3 server: GET and HEAD of objects in a map, with a tap and a fuse. The client is the real one.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use ops::Ops;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The server's state, shared with the test.
#[derive(Clone)]
pub(crate) struct Store {
    /// Where it listens.
    pub(crate) endpoint: String,
    objects: Arc<Mutex<BTreeMap<String, Bytes>>>,
    reads: Arc<Mutex<BTreeMap<String, usize>>>,
    stuck: Arc<Mutex<BTreeSet<String>>>,
    turned_away: Arc<AtomicUsize>,
    tap: Arc<watch::Sender<Tap>>,
}

/// What happens to requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tap {
    /// They are answered.
    Open,
    /// They wait.
    Held,
    /// 500.
    Broken,
    /// Connections are closed unheard, those that are there already at their next request.
    Away,
}

impl Store {
    /// Listens on a free port, as a task of `ops`.
    pub(crate) async fn start(ops: &Ops) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let store = Self {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            objects: Arc::default(),
            reads: Arc::default(),
            stuck: Arc::default(),
            turned_away: Arc::default(),
            tap: Arc::new(watch::Sender::new(Tap::Open)),
        };
        let (serving, tasks) = (store.clone(), ops.tasks.clone());
        ops.tasks.spawn("store", async move {
            while let Ok((socket, _)) = listener.accept().await {
                let store = serving.clone();
                if store.turns_away() {
                    continue;
                }
                tasks.spawn_finite("store connection", async move {
                    let service = service_fn(move |request| store.clone().answer(request));
                    let http = hyper::server::conn::http1::Builder::new();
                    drop(http.serve_connection(TokioIo::new(socket), service).await);
                });
            }
        });
        store
    }

    /// Puts an object at `key` of the bucket `media`.
    pub(crate) fn put(&self, key: &str, bytes: impl Into<Bytes>) {
        self.objects.lock().unwrap().insert(format!("/media/{key}"), bytes.into());
    }

    /// From now on whoever asks for this object waits for ever, while others are answered.
    pub(crate) fn get_stuck_on(&self, key: &str) {
        self.stuck.lock().unwrap().insert(format!("/media/{key}"));
    }

    /// Connections and requests that met a store that is away.
    pub(crate) fn turned_away(&self) -> usize {
        self.turned_away.load(Ordering::Relaxed)
    }

    /// Whether it is away; whoever asks is counted.
    fn turns_away(&self) -> bool {
        let away = *self.tap.borrow() == Tap::Away;
        self.turned_away.fetch_add(usize::from(away), Ordering::Relaxed);
        away
    }

    /// How requests go from now on.
    pub(crate) fn set(&self, tap: Tap) {
        self.tap.send_replace(tap);
    }

    /// How often the most-read object was read.
    pub(crate) fn most_reads(&self) -> usize {
        self.reads.lock().unwrap().values().copied().max().unwrap_or(0)
    }

    /// Reads of all objects, finished or waiting.
    pub(crate) fn reads(&self) -> usize {
        self.reads.lock().unwrap().values().sum()
    }

    async fn answer(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<impl Body<Data = Bytes, Error = Infallible> + use<>>, std::io::Error> {
        if self.turns_away() {
            // Ends the connection.
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        let path = request.uri().path().to_owned();
        let is_object = path.trim_matches('/').contains('/');
        if request.method() == Method::GET && is_object {
            *self.reads.lock().unwrap().entry(path.clone()).or_default() += 1;
        }
        let stuck = self.stuck.lock().unwrap().contains(&path);
        if stuck {
            std::future::pending::<()>().await;
        }
        let mut tap = self.tap.subscribe();
        let now = *tap.wait_for(|tap| *tap != Tap::Held).await.unwrap();
        let object = self.objects.lock().unwrap().get(&path).cloned();
        let (status, bytes) = match (now, object) {
            (Tap::Broken, _) => (StatusCode::INTERNAL_SERVER_ERROR, error("InternalError")),
            _ if !is_object => (StatusCode::OK, Bytes::new()),
            (_, Some(bytes)) => (StatusCode::OK, bytes),
            (_, None) => (StatusCode::NOT_FOUND, error("NoSuchKey")),
        };
        let response =
            Response::builder().status(status).header("etag", "\"1\"").header("content-length", bytes.len());
        let bytes = if request.method() == Method::HEAD { Bytes::new() } else { bytes };
        Ok(response.body(Whole::new(bytes)).unwrap())
    }
}

fn error(code: &str) -> Bytes {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>test</Message></Error>").into()
}

/// A body in one piece.
struct Whole(Option<Bytes>);

impl Whole {
    fn new(bytes: Bytes) -> Self {
        Self((!bytes.is_empty()).then_some(bytes))
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }
}
