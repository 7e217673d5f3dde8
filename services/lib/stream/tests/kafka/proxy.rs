//! A proxy that understands just enough of Kafka's frames to hold back one EndTxn, or the answer to it, to cut the line
//! in the middle of a transaction or before one, and to keep producers waiting for their ids.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use testbed::Kafka;

/// Numbers among Kafka's requests.
const INIT_PRODUCER_ID: i16 = 22;
const TXN_OFFSET_COMMIT: i16 = 28;
const END_TXN: i16 = 26;

/// What to do, and to which request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The broker gets it late.
    Request,
    /// The client gets the answer late.
    Answer,
    /// At the next TxnOffsetCommit the client loses its line, and gets no other until the time is over.
    Cut,
    /// The same at the next InitProducerId.
    CutStart,
    /// The broker gets the next InitProducerId late: its coordinator is loading, say.
    Start,
}

impl Hold {
    fn request(self) -> i16 {
        match self {
            Self::Request | Self::Answer => END_TXN,
            Self::Cut => TXN_OFFSET_COMMIT,
            Self::CutStart | Self::Start => INIT_PRODUCER_ID,
        }
    }
}

#[derive(Default)]
struct Plan {
    armed: Option<(Hold, Duration)>,
    held_until: Option<Instant>,
    cut_until: Option<Instant>,
    let_go: bool,
}

/// Stands between clients and one broker.
#[derive(Clone)]
pub struct Proxy {
    port: u16,
    plan: Arc<Mutex<Plan>>,
    starts: Arc<AtomicUsize>,
    target: Arc<Mutex<Option<String>>>,
}

impl Proxy {
    /// Before a broker of its own, which sends every client here.
    pub fn before_a_broker() -> (Self, Kafka) {
        let proxy = Self::new();
        let kafka = Kafka::builder()
            .setting("advertised.listeners", &format!("PLAINTEXT://{}", proxy.address()))
            .start()
            .unwrap();
        *proxy.target.lock().unwrap() = Some(kafka.bootstrap());
        (proxy, kafka)
    }

    /// Listens; to whom it connects is said later, when that one has started.
    fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Self { port, plan: Arc::default(), starts: Arc::default(), target: Arc::default() };
        let own = proxy.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if own.plan.lock().unwrap().cut_until.is_some_and(|until| Instant::now() < until) {
                    continue;
                }
                let Some(target) = own.target.lock().unwrap().clone() else { continue };
                let Ok(broker) = TcpStream::connect(target) else { continue };
                own.connect(client, broker);
            }
        });
        proxy
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Holds back, or cuts, for so long.
    pub fn arm(&self, hold: Hold, time: Duration) {
        *self.plan.lock().unwrap() = Plan { armed: Some((hold, time)), ..Plan::default() };
    }

    /// How many times a producer has asked for its id.
    pub fn starts(&self) -> usize {
        self.starts.load(Ordering::Relaxed)
    }

    /// Whether what was held has been let go.
    pub fn has_let_go(&self) -> bool {
        self.plan.lock().unwrap().let_go
    }

    fn connect(&self, client: TcpStream, broker: TcpStream) {
        let held: Arc<Mutex<BTreeSet<i32>>> = Arc::default();
        let (from, to) = (client.try_clone().unwrap(), broker.try_clone().unwrap());
        let (proxy, marks) = (self.clone(), Arc::clone(&held));
        thread::spawn(move || proxy.requests(from, to, &marks));
        let proxy = self.clone();
        thread::spawn(move || proxy.answers(broker, client, &held));
    }

    fn requests(&self, mut client: TcpStream, mut broker: TcpStream, held: &Mutex<BTreeSet<i32>>) {
        while let Some(frame) = frame(&mut client) {
            // Length, then: request, its version, correlation.
            let request = i16::from_be_bytes([frame[4], frame[5]]);
            let correlation = i32::from_be_bytes([frame[8], frame[9], frame[10], frame[11]]);
            self.starts.fetch_add(usize::from(request == INIT_PRODUCER_ID), Ordering::Relaxed);
            let mut wait = None;
            let mut plan = self.plan.lock().unwrap();
            if let Some((hold, time)) = plan.armed.take_if(|(hold, _)| hold.request() == request) {
                let until = Instant::now() + time;
                plan.held_until = Some(until);
                match hold {
                    Hold::Request | Hold::Start => wait = Some(until),
                    Hold::Answer => drop(held.lock().unwrap().insert(correlation)),
                    Hold::Cut | Hold::CutStart => {
                        plan.cut_until = Some(until);
                        break;
                    }
                }
            }
            drop(plan);
            if let Some(until) = wait {
                // Delivered even if its sender is gone by then: as bytes that were on their way.
                self.pass(until);
            }
            if broker.write_all(&frame).is_err() {
                break;
            }
        }
        // The other direction ends by itself once the broker has answered what it got; after a cut it is one, too.
        drop(broker.shutdown(std::net::Shutdown::Write));
    }

    fn answers(&self, mut broker: TcpStream, mut client: TcpStream, held: &Mutex<BTreeSet<i32>>) {
        while let Some(frame) = frame(&mut broker) {
            let correlation = i32::from_be_bytes([frame[4], frame[5], frame[6], frame[7]]);
            if held.lock().unwrap().remove(&correlation) {
                let until = self.plan.lock().unwrap().held_until.unwrap();
                self.pass(until);
            }
            if client.write_all(&frame).is_err() {
                break;
            }
        }
        drop(client.shutdown(std::net::Shutdown::Both));
    }

    fn pass(&self, until: Instant) {
        while Instant::now() < until {
            thread::park_timeout(until.saturating_duration_since(Instant::now()));
        }
        self.plan.lock().unwrap().let_go = true;
    }
}

/// One frame with its length before it.
fn frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0u8; 4];
    stream.read_exact(&mut length).ok()?;
    let mut frame = length.to_vec();
    frame.resize(4 + usize::try_from(i32::from_be_bytes(length)).ok()?, 0);
    stream.read_exact(&mut frame[4..]).ok()?;
    Some(frame)
}
