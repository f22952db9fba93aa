//! A network between a client and the server that breaks.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Passes bytes on, and cuts the first connections after some.
pub struct Relay {
    pub url: String,
    cut: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Leads to the server of this URL. The first `cuts` connections that get so many bytes from it are cut there, in the
    /// middle of whatever it is.
    pub async fn to(url: &str, cuts: usize, after_bytes: usize) -> Self {
        let server: SocketAddr = url.trim_start_matches("http://").parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let cut = Arc::new(AtomicUsize::new(0));
        let counted = cut.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let counted = counted.clone();
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        // Either side may end it, and a broken connection is what this is for.
                        let _ = pass(client, server, &counted, cuts, after_bytes).await;
                    }
                });
            }
        });
        Self { url, cut, task }
    }

    /// How many connections were cut.
    pub fn cut(&self) -> usize {
        self.cut.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    client: TcpStream,
    server: TcpStream,
    cut: &AtomicUsize,
    cuts: usize,
    after_bytes: usize,
) -> std::io::Result<()> {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let there = async { tokio::io::copy(&mut from_client, &mut to_server).await.map(|_| ()) };
    let back = async {
        let (mut buffer, mut passed) = ([0; 1024], 0);
        loop {
            let count = from_server.read(&mut buffer).await?;
            if count == 0 {
                return to_client.shutdown().await;
            }
            to_client.write_all(&buffer[..count]).await?;
            passed += count;
            if passed >= after_bytes
                && cut.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |cut| (cut < cuts).then_some(cut + 1)).is_ok()
            {
                return Ok(());
            }
        }
    };
    tokio::select! {
        done = there => done,
        done = back => done,
    }
}
