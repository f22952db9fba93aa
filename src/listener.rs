//! Accepts connections for Poem, which by itself leaves small packets to wait for each other and spins when the
//! process is out of file descriptors.

use std::{io, time::Duration};

use poem::{
    http::uri::Scheme,
    listener::Acceptor,
    web::{LocalAddr, RemoteAddr},
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tracing::warn;

use crate::telemetry::Seldom;

/// How long to wait after a failed accept, in milliseconds: descriptors come back when connections close.
const ACCEPT_PAUSE_MILLIS: u64 = 100;

/// A bound TCP socket.
pub struct FrontDoor {
    listener: TcpListener,
    failures: Seldom,
}

impl FrontDoor {
    /// Takes over a listening socket.
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, failures: Seldom::default() }
    }
}

impl Acceptor for FrontDoor {
    type Io = TcpStream;

    fn local_addr(&self) -> Vec<LocalAddr> {
        self.listener.local_addr().map(|address| LocalAddr(address.into())).into_iter().collect()
    }

    async fn accept(&mut self) -> io::Result<(TcpStream, LocalAddr, RemoteAddr, Scheme)> {
        loop {
            let accepted = self.listener.accept().await.and_then(|(stream, remote)| {
                // A frame leaves when it is written, not when the one before it was acknowledged (40 ms later).
                stream.set_nodelay(true)?;
                Ok((LocalAddr(stream.local_addr()?.into()), stream, remote))
            });
            match accepted {
                Ok((local, stream, remote)) => return Ok((stream, local, RemoteAddr(remote.into()), Scheme::HTTP)),
                Err(error) => {
                    if let Some(count) = self.failures.count() {
                        warn!("a connection could not be accepted ({count} so far): {error}");
                    }
                    sleep(Duration::from_millis(ACCEPT_PAUSE_MILLIS)).await;
                }
            }
        }
    }
}
