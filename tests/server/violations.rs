//! Clients that break the protocol of WebSockets: each is told by the close code what it did, and nobody else notices.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    harness::{PATIENCE_SECS, TestServer},
    socket_io::handshake,
};

/// A frame of a client whose mask is zeros. `second` is its second byte, and `length` what follows that.
fn frame(first: u8, second: u8, length: &[u8], payload: &[u8]) -> Vec<u8> {
    [&[first, second][..], length, &[0; 4], payload].concat()
}

fn small(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, 0x80 | payload.len() as u8, &[], payload)
}

/// Opens a WebSocket, sends these bytes as they are, and returns the code with which it is closed.
async fn code_after(server: &TestServer, bytes: &[u8]) -> Option<u16> {
    let mut socket = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
    socket.write_all(&[&handshake("/ws?room=general")[..], bytes].concat()).await.unwrap();
    let mut said = Vec::new();
    let closed = timeout(Duration::from_secs(PATIENCE_SECS), socket.read_to_end(&mut said)).await;
    // A reset is an end, too, when what the server did not read is more than it takes.
    let _ = closed.expect("the server closes the connection");
    let head = said.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer to the handshake");
    let mut frames = &said[head + 4..];
    while let [first, length, rest @ ..] = frames {
        let (length, rest) = match length {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            short => (usize::from(*short), rest),
        };
        if *first == 0x88 {
            return Some(u16::from_be_bytes([rest[0], rest[1]]));
        }
        frames = &rest[length..];
    }
    None
}

#[tokio::test]
async fn who_breaks_the_protocol_is_closed_with_the_code_for_it_and_nobody_else() {
    let server = TestServer::start().await;
    let mut follower = server.follow("room=general").await;
    let full = vec![b'x'; 64 * 1024];
    let full_length = (full.len() as u64).to_be_bytes();
    for (what, bytes, code) in [
        ("not masked", b"\x81\x02{}".to_vec(), 1002),
        ("a reserved bit", small(0xC1, b"{}"), 1002),
        ("a reserved opcode", small(0x83, b"{}"), 1002),
        ("a fragment of a ping", small(0x09, b"x"), 1002),
        ("a ping of 126 bytes", frame(0x89, 0xFE, &[0, 126], &[0; 126]), 1002),
        ("a continuation of nothing", small(0x80, b"x"), 1002),
        ("a message within another", [small(0x01, b"{"), small(0x81, b"{}")].concat(), 1002),
        ("a close of one byte", small(0x88, b"x"), 1002),
        ("a close code that is never sent", small(0x88, &1005_u16.to_be_bytes()), 1002),
        ("bytes", small(0x82, b"{}"), 1003),
        ("text that is not UTF-8", small(0x81, b"\xFF"), 1007),
        ("half of a surrogate pair", small(0x81, b"\xED\xA0\x80"), 1007),
        ("64 MiB, of which nothing has come", frame(0x81, 0xFF, &(64_u64 << 20).to_be_bytes(), &[]), 1009),
        ("a byte more than there may be", frame(0x81, 0xFF, &(full.len() as u64 + 1).to_be_bytes(), &[]), 1009),
        ("fragments that add up", [frame(0x01, 0xFF, &full_length, &full), small(0x80, b"x")].concat(), 1009),
    ] {
        assert_eq!(code_after(&server, &bytes).await, Some(code), "{what}");
    }
    server.say("general", "nobody else notices").await;
    follower.expect_next_content("nobody else notices").await;
    assert_eq!(server.metric("corriente_connections{transport=\"websocket\"}").await, 1);
    server.stop().await;
}
