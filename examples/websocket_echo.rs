//! A WebSocket that sends back what it gets, over the same handshake and frames as the server's: for suites that test
//! conformance with RFC 6455. `HOST` (127.0.0.1) and `PORT` (9001; 0 = any free one) say where.

use std::{env, time::Duration};

use corriente::{
    problem::Problem,
    sessions::{Incoming, Outgoing, ReadError, Socket, WriteError, accept},
};
use poem::{Request, Response, Route, Server, Upgraded, get, handler, listener::TcpListener};

/// How long a peer may take no byte.
const SILENCE_MAX: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let setting = |name, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let address = format!("{}:{}", setting("HOST", "127.0.0.1"), setting("PORT", "9001"));
    println!("listening on ws://{address}");
    Server::new(TcpListener::bind(address)).run(Route::new().at("/*any", get(serve)).at("/", get(serve))).await
}

#[handler]
fn serve(request: &Request) -> Result<Response, Problem> {
    let (upgrade, answer) = accept(request)?;
    tokio::spawn(async move {
        if let Ok(stream) = upgrade.await {
            // A peer that is gone has nobody to be told of it.
            let _ = echo(Socket::new(stream)).await;
        }
    });
    Ok(answer)
}

async fn echo(mut socket: Socket<Upgraded>) -> Result<(), WriteError> {
    let goodbye = loop {
        let answer = match socket.read().await {
            Ok(Incoming::Text(text)) => Outgoing::Text(text.as_bytes()).encode(),
            Ok(Incoming::Binary(data)) => Outgoing::Binary(&data).encode(),
            Ok(Incoming::Ping(payload)) => Outgoing::Pong(&payload).encode(),
            Ok(Incoming::Pong) => continue,
            Ok(Incoming::Close(code)) => break Outgoing::close_echo(code).encode(),
            Err(ReadError::Violation(violation)) => break violation.close_frame(),
            Err(ReadError::Gone) => return Ok(()),
        };
        socket.write(answer, SILENCE_MAX).await?;
    };
    socket.write(goodbye, SILENCE_MAX).await?;
    socket.part().await;
    Ok(())
}
