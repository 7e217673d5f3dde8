//! Rights of a broker's users, given by the one request of Kafka's protocol that gives them: its command line is in
//! none of the jars that the set-up fetches.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context, ensure};

/// What a right is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On<'a> {
    /// A topic.
    Topic(&'a str),
    /// A group.
    Group(&'a str),
    /// A transactional id.
    TransactionalId(&'a str),
}

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum May {
    /// Read records, or be a member.
    Read,
    /// Write records, or begin transactions.
    Write,
    /// Make a topic.
    Create,
    /// See that it is there.
    Describe,
    /// See a topic's settings.
    DescribeConfigs,
}

/// `CreateAcls`, in its last version without tagged fields.
const CREATE_ACLS: (i16, i16) = (30, 1);
const LITERAL: u8 = 3;
const ALLOW: u8 = 3;
/// The controller is there and idle.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks the controller; whoever comes to its listener must be allowed to.
pub(super) fn allow(controller: u16, user: &str, rights: &[(On<'_>, May)]) -> anyhow::Result<()> {
    let mut request = Vec::new();
    let (key, version) = CREATE_ACLS;
    request.extend(key.to_be_bytes());
    request.extend(version.to_be_bytes());
    request.extend(0i32.to_be_bytes());
    put(&mut request, "testbed")?;
    request.extend(i32::try_from(rights.len())?.to_be_bytes());
    for (on, may) in rights {
        // Numbers of org.apache.kafka.common.resource.ResourceType and acl.AclOperation.
        let (kind, name) = match on {
            On::Topic(name) => (2, name),
            On::Group(name) => (3, name),
            On::TransactionalId(name) => (5, name),
        };
        let operation = match may {
            May::Read => 3,
            May::Write => 4,
            May::Create => 5,
            May::Describe => 8,
            May::DescribeConfigs => 10,
        };
        request.push(kind);
        put(&mut request, name)?;
        request.push(LITERAL);
        put(&mut request, &format!("User:{user}"))?;
        put(&mut request, "*")?;
        request.extend([operation, ALLOW]);
    }
    let answer = ask(controller, &request).context("rights from Kafka's controller")?;
    // Correlation, throttling, then for each right a code and words.
    let mut rest = answer.get(12..).unwrap_or_default();
    for right in rights {
        ensure!(rest.len() >= 4, "Kafka's answer ends early");
        let code = i16::from_be_bytes([rest[0], rest[1]]);
        let length = usize::try_from(i16::from_be_bytes([rest[2], rest[3]])).unwrap_or(0);
        let words = String::from_utf8_lossy(rest.get(4..4 + length).unwrap_or_default()).into_owned();
        ensure!(code == 0, "{right:?} was not given to {user}: {code} {words}");
        rest = rest.get(4 + length..).unwrap_or_default();
    }
    Ok(())
}

fn put(request: &mut Vec<u8>, text: &str) -> anyhow::Result<()> {
    request.extend(i16::try_from(text.len())?.to_be_bytes());
    request.extend(text.as_bytes());
    Ok(())
}

fn ask(port: u16, request: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&i32::try_from(request.len())?.to_be_bytes())?;
    stream.write_all(request)?;
    let mut length = [0u8; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0u8; usize::try_from(i32::from_be_bytes(length))?];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}
