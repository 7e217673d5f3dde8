//! The admin pages of a process.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// An HTTP answer.
#[derive(Debug)]
pub struct Page {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// GET over HTTP/1.0: the whole protocol that an admin page needs.
pub fn get(url: &str, path: &str) -> Option<Page> {
    let address = url.strip_prefix("http://")?.trim_end_matches('/');
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some(Page { status, body: body.to_owned() })
}

/// The sum over the series of `name` whose labels contain `label`, in Prometheus' text format.
pub fn sum(metrics: &str, name: &str, label: &str) -> f64 {
    values(metrics, name, label).iter().sum()
}

/// The values of the series of `name` whose labels contain `label`.
pub fn values(metrics: &str, name: &str, label: &str) -> Vec<f64> {
    let series = metrics.lines().filter_map(|line| line.strip_prefix(name));
    series
        .filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
        .collect()
}
