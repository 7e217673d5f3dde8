//! Rights of a broker's users, given and taken by the two requests of Kafka's protocol that do so: its command line is
//! in none of the jars that the set-up fetches.

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
/// `DeleteAcls`, likewise.
const DELETE_ACLS: (i16, i16) = (31, 1);
const LITERAL: u8 = 3;
const ALLOW: u8 = 3;
/// The controller is there and idle.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks the controller; whoever comes to its listener must be allowed to.
pub(super) fn allow(controller: u16, user: &str, rights: &[(On<'_>, May)]) -> anyhow::Result<()> {
    let answer =
        ask(controller, &request(CREATE_ACLS, user, rights)?).context("rights from the controller")?;
    let mut answer = Answer::of(&answer)?;
    for right in rights {
        let (code, words) = answer.result()?;
        ensure!(code == 0, "{right:?} was not given to {user}: {code} {words}");
    }
    Ok(())
}

/// As [`allow`].
pub(super) fn forbid(controller: u16, user: &str, rights: &[(On<'_>, May)]) -> anyhow::Result<()> {
    let answer =
        ask(controller, &request(DELETE_ACLS, user, rights)?).context("rights from the controller")?;
    let mut answer = Answer::of(&answer)?;
    for right in rights {
        let (code, words) = answer.result()?;
        ensure!(code == 0, "{right:?} was not taken from {user}: {code} {words}");
        let found = i32::from_be_bytes(answer.take()?);
        ensure!(found == 1, "{right:?} was not there to be taken from {user}");
        let (code, words) = answer.result()?;
        ensure!(code == 0, "{right:?} was not taken from {user}: {code} {words}");
        // What was found is told again, as it was asked for.
        let _kind: [u8; 1] = answer.take()?;
        answer.text()?;
        let _pattern: [u8; 1] = answer.take()?;
        answer.text()?;
        answer.text()?;
        let _operation_and_allowed: [u8; 2] = answer.take()?;
    }
    Ok(())
}

/// Both requests list rights alike: the second calls it a filter.
fn request((key, version): (i16, i16), user: &str, rights: &[(On<'_>, May)]) -> anyhow::Result<Vec<u8>> {
    let mut request = Vec::new();
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
    Ok(request)
}

/// What is left to read of an answer.
struct Answer<'a>(&'a [u8]);

impl<'a> Answer<'a> {
    /// Behind correlation, throttling and the number of results, which is that of the rights.
    fn of(bytes: &'a [u8]) -> anyhow::Result<Self> {
        Ok(Self(bytes.get(12..).context(SHORT)?))
    }

    fn take<const N: usize>(&mut self) -> anyhow::Result<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().context(SHORT)?;
        self.0 = rest;
        Ok(*bytes)
    }

    /// A text, or none (of length −1).
    fn text(&mut self) -> anyhow::Result<String> {
        let length = usize::try_from(i16::from_be_bytes(self.take()?)).unwrap_or(0);
        let (text, rest) = self.0.split_at_checked(length).context(SHORT)?;
        self.0 = rest;
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// A code and words.
    fn result(&mut self) -> anyhow::Result<(i16, String)> {
        Ok((i16::from_be_bytes(self.take()?), self.text()?))
    }
}

const SHORT: &str = "Kafka's answer ends early";

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
