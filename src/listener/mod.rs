//! The front door: accepts connections, bounds them in number and in time, finds out who asks, and hands their requests to
//! the routes.
//!
//! Poem's own server does none of this: it lets small packets wait for each other, spins when the process is out of file
//! descriptors, and waits for ever for a client that does not go on. So hyper serves the connections here.

mod answers;
mod bodies;
mod connection;
mod guests;
mod network;
mod proxies;
mod room;
mod sign_in;
mod stream;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use poem::{Endpoint, Response};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, warn};

pub use answers::Way;
pub use guests::{Guest, GuestBook};
pub use network::ClientNetwork;
pub use proxies::TrustedProxy;
pub use sign_in::{NotSignedIn, SenderHeader, Writer};
pub use stream::{ClientStream, Inspector, Upgrade};

use crate::telemetry::{Metrics, ReasonLabels, Seldom, show_from_start};
use answers::Answers;
use bodies::Bodies;
use connection::Connection;
use guests::Guests;

/// How long to wait after a failed accept, in milliseconds: descriptors come back when connections close.
const ACCEPT_PAUSE_MILLIS: u64 = 100;
/// Descriptors that are kept for MongoDB's connections, files and the like.
const DESCRIPTORS_KEPT: u64 = 256;

/// Bounds of connections, and who is believed.
#[derive(Debug, Clone)]
pub struct DoorLimits {
    /// The most open connections.
    pub connections_max: usize,
    /// The most of one address.
    pub connections_per_address_max: usize,
    /// How long a client may take to send the headers of its first or next request.
    pub header_time_max: Duration,
    /// How long a connection may last without a byte that moves.
    pub silence_max: Duration,
    /// The most memory of answers that their clients have not taken yet, in bytes.
    pub answers_bytes_max: usize,
    /// Proxies that are believed when they say for whom they ask.
    pub trusted_proxies: Arc<[TrustedProxy]>,
    /// Where these say who has signed in.
    pub sender_header: SenderHeader,
    /// The most memory of the bodies of requests, in bytes.
    pub bodies_bytes_max: usize,
}

/// What is said to a client for whom there is no place.
const PROBLEM: &str = r#"{"type":"/problems/unavailable","title":"This can not be done just now","status":503,"detail":"there are too many connections, in all or from your address; close some, or try again in a moment"}"#;
/// When that client may come back, in seconds.
const RETRY_AFTER_SECS: u32 = 5;

/// A bound TCP socket, and who came through it.
pub struct FrontDoor {
    listener: TcpListener,
    limits: DoorLimits,
    guests: Guests,
    metrics: Metrics,
    failures: Seldom,
    refusals: Seldom,
    /// Requests that name a client and come from no proxy that is trusted.
    strangers: Arc<Seldom>,
}

impl FrontDoor {
    /// Takes over a listening socket. The bound of connections is lowered to what the system lets this process open.
    pub fn new(listener: TcpListener, mut limits: DoorLimits, metrics: &Metrics) -> Self {
        let descriptors = descriptors_max();
        let possible = usize::try_from(descriptors.saturating_sub(DESCRIPTORS_KEPT)).unwrap_or(usize::MAX).max(1);
        if possible < limits.connections_max {
            warn!(
                "at most {possible} connections at once, not {}: the system allows {descriptors} open files (ulimit -n)",
                limits.connections_max
            );
            limits.connections_max = possible;
        }
        let guests = Guests::new(limits.connections_max, limits.connections_per_address_max);
        show_from_start(&metrics.refusals, [ReasonLabels { reason: "connections" }]);
        Self {
            listener,
            limits,
            guests,
            metrics: metrics.clone(),
            failures: Seldom::default(),
            refusals: Seldom::default(),
            strangers: Arc::default(),
        }
    }

    /// Serves `endpoint` until `stop`. Then no connection is accepted any more, requests under way are answered, and what
    /// is not done after `patience` is cut.
    pub async fn serve<E>(self, endpoint: E, stop: CancellationToken, patience: Duration)
    where
        E: Endpoint<Output = Response> + 'static,
    {
        let endpoint = Arc::new(endpoint);
        let (connections, cut) = (TaskTracker::new(), CancellationToken::new());
        let answers = Answers::new(self.limits.answers_bytes_max);
        let bodies = Bodies::new(self.limits.bodies_bytes_max);
        loop {
            let (stream, remote) = tokio::select! {
                accepted = self.accept() => accepted,
                () = stop.cancelled() => break,
            };
            let is_proxy = proxies::is_trusted(&self.limits.trusted_proxies, remote.ip());
            let guest =
                if is_proxy { self.guests.admit_proxy() } else { self.guests.admit(ClientNetwork::of(remote.ip())) };
            let Some(guest) = guest else {
                self.refuse(stream, remote);
                continue;
            };
            let connection = Connection {
                endpoint: endpoint.clone(),
                answers: answers.clone(),
                limits: self.limits.clone(),
                remote,
                guests: self.guests.clone(),
                bodies: bodies.clone(),
                is_proxied: is_proxy,
                strangers: self.strangers.clone(),
                refusals: self.metrics.refusals.get_or_create(&ReasonLabels { reason: "connections" }).clone(),
            };
            let (stop, cut) = (stop.clone(), cut.clone());
            connections.spawn(async move {
                tokio::select! {
                    () = connection.serve(stream, guest, stop) => {}
                    () = cut.cancelled() => {}
                }
            });
        }
        drop(self);
        connections.close();
        if timeout(patience, connections.wait()).await.is_err() {
            error!("{} connections had to be cut after {} s", connections.len(), patience.as_secs());
            cut.cancel();
            connections.wait().await;
        }
    }

    async fn accept(&self) -> (TcpStream, SocketAddr) {
        loop {
            let error = match self.listener.accept().await {
                // A frame leaves when it is written, not when the one before it was acknowledged (40 ms later).
                Ok((stream, remote)) => match stream.set_nodelay(true) {
                    Ok(()) => return (stream, remote),
                    // It is gone already.
                    Err(_) => continue,
                },
                Err(error) => error,
            };
            if is_about_one_connection(&error) {
                continue;
            }
            if let Some(count) = self.failures.count() {
                warn!("a connection could not be accepted ({count} so far): {error}");
            }
            sleep(Duration::from_millis(ACCEPT_PAUSE_MILLIS)).await;
        }
    }

    /// Says that there is no room, without waiting for the client.
    fn refuse(&self, stream: TcpStream, remote: SocketAddr) {
        if let Some(count) = self.refusals.count() {
            warn!("refused a connection of {}: too many are open ({count} so far)", remote.ip());
        }
        self.metrics.refusals.get_or_create(&ReasonLabels { reason: "connections" }).inc();
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: {RETRY_AFTER_SECS}\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n{PROBLEM}",
            PROBLEM.len()
        );
        // It fits into the socket's buffer. A client that has sent its request already may see a reset instead.
        let _ = stream.try_write(answer.as_bytes());
    }
}

/// A client that gave up before it was accepted says nothing about the others.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// How many files this process may have open: the soft limit is raised to the hard one, as far as the system lets us.
fn descriptors_max() -> u64 {
    rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_to_an_accepted_connection_leaves_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = DoorLimits {
            connections_max: 1,
            connections_per_address_max: 1,
            header_time_max: Duration::from_secs(1),
            silence_max: Duration::from_secs(1),
            answers_bytes_max: 1,
            trusted_proxies: [].into(),
            sender_header: SenderHeader::default(),
            bodies_bytes_max: 1,
        };
        let door = FrontDoor::new(listener, limits, &Metrics::default());
        let (client, (stream, remote)) = tokio::join!(TcpStream::connect(address), door.accept());
        assert_eq!(client.unwrap().local_addr().unwrap(), remote);
        assert!(stream.nodelay().unwrap(), "small packets wait for each other");
    }
}
