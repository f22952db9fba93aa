//! Publishers over WebSockets: several messages are under way over each, and are answered in their order.

use std::{collections::VecDeque, time::Duration};

use anyhow::{Context, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{
    frames::{Frame, Kind, client_pong, client_text},
    http::{ANSWER_SECS_MAX, ask, upgrade_request},
    publishers::Publisher,
    stamp::Stamp,
};

/// The pause before coming back after a connection broke.
const PAUSE_BEFORE_COMING_BACK: Duration = Duration::from_millis(200);

/// Sends until the publisher has nothing more, over as many connections as it takes.
pub async fn publish(mut publisher: Publisher) {
    loop {
        let mut under_way = VecDeque::new();
        let outcome = send(&mut publisher, &mut under_way).await;
        let Err(error) = outcome else {
            return;
        };
        publisher.records().broke(&under_way, &format!("{error:#}"));
        sleep(PAUSE_BEFORE_COMING_BACK).await;
        if publisher.is_over() {
            return;
        }
    }
}

async fn send(publisher: &mut Publisher, under_way: &mut VecDeque<Stamp>) -> anyhow::Result<()> {
    let mut stream = publisher.site.dial(0).await?;
    // It follows nothing: what it wrote comes back to the readers only.
    let (head, mut bytes) = ask(&mut stream, &upgrade_request(&publisher.site, "/ws")).await?;
    ensure!(head.status == 101, "/ws was answered {}", head.status);
    let room = publisher.plan.pipeline as usize;
    let mut has_more = true;
    while has_more || !under_way.is_empty() {
        tokio::select! {
            next = publisher.next(), if has_more && under_way.len() < room => {
                let Some(stamp) = next else {
                    has_more = false;
                    continue;
                };
                let mut frames = frame_of(publisher, &stamp);
                under_way.push_back(stamp);
                while under_way.len() < room && let Some(stamp) = publisher.try_next() {
                    frames.extend(frame_of(publisher, &stamp));
                    under_way.push_back(stamp);
                }
                write(&mut stream, &frames).await?;
            }
            read = timeout(Duration::from_secs(ANSWER_SECS_MAX), stream.read_buf(&mut bytes)) => {
                match read {
                    Ok(read) => ensure!(read? > 0, "the server closed the connection"),
                    Err(_) if under_way.is_empty() => {}
                    Err(_) => bail!("no answer in time"),
                }
                let reply = take_answers(&mut bytes, publisher, under_way)?;
                if !reply.is_empty() {
                    write(&mut stream, &reply).await?;
                }
            }
        }
    }
    Ok(())
}

fn frame_of(publisher: &Publisher, stamp: &Stamp) -> Vec<u8> {
    client_text(format!(r#"{{"type":"send",{}"#, publisher.fields(stamp)).as_bytes())
}

async fn write(stream: &mut TcpStream, bytes: &[u8]) -> anyhow::Result<()> {
    let written = timeout(Duration::from_secs(ANSWER_SECS_MAX), stream.write_all(bytes)).await;
    Ok(written.context("the server does not read")??)
}

/// Reads all whole frames. Returns what must be sent to the server.
fn take_answers(
    bytes: &mut Vec<u8>,
    publisher: &Publisher,
    under_way: &mut VecDeque<Stamp>,
) -> anyhow::Result<Vec<u8>> {
    let (mut at, mut reply) = (0, Vec::new());
    let mut records = publisher.records();
    while let Some(frame) = Frame::at(bytes, at) {
        at = frame.payload.end;
        let payload = &bytes[frame.payload];
        match frame.kind {
            Kind::Text if payload.starts_with(br#"{"type":"sent""#) => {
                let stamp = under_way.pop_front().context("more answers than messages")?;
                records.acknowledged(&stamp);
            }
            Kind::Text if payload.starts_with(br#"{"type":"error""#) => {
                let stamp = under_way.pop_front().context("more answers than messages")?;
                let text = String::from_utf8_lossy(payload);
                let status = text.split_once(r#""status":"#).and_then(|(_, rest)| rest.get(..3)).unwrap_or("an error");
                records.failed(&stamp, format!("answered {status}"));
            }
            Kind::Ping => reply.extend(client_pong(payload)),
            Kind::Close => bail!("the server closed the connection"),
            Kind::Text | Kind::Other => {}
        }
    }
    drop(records);
    bytes.drain(..at);
    Ok(reply)
}
