//! One command to one mongod over one socket.
//!
//! The driver would bring pools, monitors and server selection, whose heartbeat waits 500 ms before
//! it looks again at a server that has only just started to listen. Starting a set asks a dozen
//! short questions of servers that may be down, stopped or not yet members of anything, so this
//! speaks the wire protocol (`OP_MSG`) itself: connect, ask, read, close, under one deadline.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use bson::Document;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const OP_MSG: i32 = 2013;
const HEADER_BYTES: usize = 16;
/// No reply to the commands used here comes near this; the bound only protects against a stranger
/// on the port.
const REPLY_BYTES_MAX: usize = 16 << 20;

/// How a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Nobody listens, the connection broke, or the answer was no MongoDB reply.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The server accepted the connection but did not answer in time: stopped, or very busy.
    #[error("no answer within {} s", .0.as_secs_f32())]
    Silent(Duration),
    /// The server said no.
    #[error("{message} (code {code})")]
    Refused { code: i32, message: String },
}

/// Runs `command` on the database `admin`, or on the one that its `$db` names.
pub(crate) async fn run(port: u16, command: Document, within: Duration) -> Result<Document, Failure> {
    match tokio::time::timeout(within, ask(port, command)).await {
        Ok(reply) => reply,
        Err(_) => Err(Failure::Silent(within)),
    }
}

async fn ask(port: u16, mut command: Document) -> Result<Document, Failure> {
    if !command.contains_key("$db") {
        command.insert("$db", "admin");
    }
    let body = command.to_vec().map_err(invalid)?;
    let mut message = Vec::with_capacity(HEADER_BYTES + 5 + body.len());
    let length = (HEADER_BYTES + 5 + body.len()) as i32;
    for field in [length, 1 /* request id */, 0 /* response to */, OP_MSG, 0 /* flags */] {
        message.extend_from_slice(&field.to_le_bytes());
    }
    message.push(0); // Section kind 0: the body.
    message.extend_from_slice(&body);

    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&message).await?;

    let length = stream.read_i32_le().await?;
    let rest = usize::try_from(length).ok().and_then(|length| length.checked_sub(4)).unwrap_or(0);
    if !(HEADER_BYTES..REPLY_BYTES_MAX).contains(&rest) {
        return Err(invalid("the answer is not MongoDB's"));
    }
    let mut reply = vec![0; rest];
    stream.read_exact(&mut reply).await?;
    // Ids and operation code (12 bytes), flags (4), section kind (1), then the document.
    let document = Document::from_reader(reply.get(17..).unwrap_or_default()).map_err(invalid)?;

    if document.get("ok").is_some_and(is_one) {
        Ok(document)
    } else {
        Err(Failure::Refused {
            code: document.get_i32("code").unwrap_or(0),
            message: document.get_str("errmsg").unwrap_or("no reason given").to_owned(),
        })
    }
}

fn is_one(value: &bson::Bson) -> bool {
    value.as_f64() == Some(1.0) || value.as_i32() == Some(1) || value.as_i64() == Some(1)
}

fn invalid(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::Io(io::Error::new(io::ErrorKind::InvalidData, cause))
}
