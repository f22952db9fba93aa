//! As much HTTP/1.1 as a load test needs: upgrades, event streams, and small POSTs over kept connections. A full client
//! costs more per request than the server that is to be measured.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream, lookup_host},
    time::timeout,
};

/// How long a server may take to answer, in seconds.
pub const ANSWER_SECS_MAX: u64 = 30;
/// The most that the head of an answer may take, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Connections from one source address to one server. A system has some 28,000 ports for them.
const CONNECTIONS_PER_ADDRESS: usize = 20_000;

/// Where a server is.
#[derive(Debug, Clone)]
pub struct Site {
    /// `host:port`, for the header.
    pub host: String,
    pub address: SocketAddr,
}

impl Site {
    /// Reads `http://host:port`.
    pub async fn find(url: &str) -> anyhow::Result<Self> {
        let host = url.strip_prefix("http://").with_context(|| {
            format!("{url} does not begin with http:// (the load generator speaks no TLS; aim it behind the proxy)")
        })?;
        let host = host.trim_end_matches('/');
        ensure!(!host.contains('/'), "{url} has a path; name only the server, such as http://127.0.0.1:3000");
        let name = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
        let found = timeout(Duration::from_secs(ANSWER_SECS_MAX), lookup_host(&name)).await;
        let found =
            found.context("the name service does not answer")?.with_context(|| format!("{host} is not known"))?;
        let address = found.min_by_key(SocketAddr::is_ipv6).with_context(|| format!("{host} has no address"))?;
        Ok(Self { host: host.to_owned(), address })
    }

    /// Opens the `n`-th connection, from another loopback address when one would run out of ports.
    pub async fn dial(&self, n: usize) -> anyhow::Result<TcpStream> {
        let last = u8::try_from(1 + n / CONNECTIONS_PER_ADDRESS).context("too many connections")?;
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.context("no more sockets; raise `ulimit -n`")?;
        if last > 1 && self.address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into())?;
        }
        let dialling = timeout(Duration::from_secs(ANSWER_SECS_MAX), socket.connect(self.address));
        let stream = dialling.await.context("no connection in time")?.context("no connection")?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    pub content_length: Option<usize>,
    pub is_chunked: bool,
    /// Where the body begins.
    pub end: usize,
}

impl Head {
    /// Reads the head of an answer; `None` when it is not all there yet.
    pub fn read(bytes: &[u8]) -> anyhow::Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            ensure!(bytes.len() < HEAD_BYTES_MAX, "the head of the answer has no end");
            return Ok(None);
        };
        let text = str::from_utf8(&bytes[..end]).context("the answer is not HTTP")?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok());
        let mut head = Self {
            status: status.context("the answer is not HTTP/1")?,
            content_length: None,
            is_chunked: false,
            end: end + 4,
        };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                head.content_length = value.trim().parse().ok();
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                head.is_chunked = value.to_ascii_lowercase().contains("chunked");
            }
        }
        Ok(Some(head))
    }
}

/// Sends a request and reads the head of its answer. Returns that and what came after it.
pub async fn ask(stream: &mut TcpStream, request: &str) -> anyhow::Result<(Head, Vec<u8>)> {
    let answer = async {
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::with_capacity(1024);
        loop {
            ensure!(stream.read_buf(&mut bytes).await? > 0, "the server closed the connection before it answered");
            if let Some(head) = Head::read(&bytes)? {
                bytes.drain(..head.end);
                return Ok((head, bytes));
            }
        }
    };
    timeout(Duration::from_secs(ANSWER_SECS_MAX), answer).await.context("no answer in time")?
}

/// The request that turns a connection into a WebSocket.
pub fn upgrade_request(site: &Site, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        site.host
    )
}

/// A connection that is kept for one POST after the other.
pub struct Kept {
    stream: TcpStream,
    head: String,
    bytes: Vec<u8>,
}

impl Kept {
    /// Opens one. All requests go to `path`.
    pub async fn open(site: &Site, path: &str) -> anyhow::Result<Self> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: ",
            site.host
        );
        Ok(Self { stream: site.dial(0).await?, head, bytes: Vec::with_capacity(4 * 1024) })
    }

    /// Sends a body, and returns the status and the body of the answer.
    pub async fn post(&mut self, body: &str) -> anyhow::Result<(u16, &[u8])> {
        let request = format!("{}{}\r\n\r\n{body}", self.head, body.len());
        let answer = async {
            self.stream.write_all(request.as_bytes()).await?;
            self.bytes.clear();
            loop {
                ensure!(self.stream.read_buf(&mut self.bytes).await? > 0, "the server closed the connection");
                let Some(head) = Head::read(&self.bytes)? else {
                    continue;
                };
                let Some(length) = head.content_length else {
                    bail!("an answer without Content-Length, which the load generator can not read");
                };
                if self.bytes.len() >= head.end + length {
                    return Ok(head);
                }
            }
        };
        let head = timeout(Duration::from_secs(ANSWER_SECS_MAX), answer).await.context("no answer in time")??;
        Ok((head.status, self.bytes.get(head.end..).unwrap_or_default()))
    }
}

/// Sends one POST over a connection of its own.
pub async fn post_once(site: &Site, path: &str, body: &str) -> anyhow::Result<String> {
    let mut kept = Kept::open(site, path).await?;
    let (status, answer) = kept.post(body).await?;
    let answer = String::from_utf8_lossy(answer).into_owned();
    ensure!(status < 300, "POST {path} was answered {status}: {answer}");
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_when_they_are_whole() {
        let text = b"HTTP/1.1 201 Created\r\ncontent-length: 12\r\nTransfer-Encoding: chunked\r\n\r\n{}";
        let head = Head { status: 201, content_length: Some(12), is_chunked: true, end: text.len() - 2 };
        assert_eq!(Head::read(text).unwrap(), Some(head));
        assert_eq!(Head::read(&text[..40]).unwrap(), None);
        assert!(Head::read(b"SSH-2.0-OpenSSH\r\n\r\n").is_err());
        assert!(Head::read(&[b'x'; HEAD_BYTES_MAX]).is_err());
    }

    #[tokio::test]
    async fn only_plain_servers_are_taken() {
        assert!(Site::find("https://example.net").await.is_err());
        assert!(Site::find("http://127.0.0.1:3000/ws").await.is_err());
        assert_eq!(Site::find("http://127.0.0.1:3000/").await.unwrap().host, "127.0.0.1:3000");
    }
}
