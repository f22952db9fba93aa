//! A chat in the terminal: `cargo run --release --example chat -- --room general --name Ana`.
//!
//! Every line of the standard input is sent as a message, and what happens in the room is shown as it happens. With
//! `--inbox Ana` it is the direct messages of Ana, and a line that begins with `@Luis` goes to Luis alone. When the input
//! ends, the program ends as soon as all of it is stored: `echo hola | chat --name Ana` says one thing.
//!
//! It is a whole client as docs/protocol.md asks for: it joins the history to the stream by a cursor, comes back after
//! any break with back-off and jitter, repeats what was not answered with the same id, and loads the history again after
//! a `reset`. It uses nothing of the server's own code.

mod connection;
mod outbox;
mod screen;

use std::{io::BufRead, time::Duration};

use anyhow::Context;
use clap::Parser;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use connection::{End, Place, Server};
use outbox::Outbox;
use screen::Screen;

/// A failure is followed by a random wait below this, doubled with each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// A connection that was live for so long counts as good: the next failure is the first one again.
const GOOD_AFTER: Duration = Duration::from_secs(5);
/// A reset often meets everybody at once; clients come back spread over this time.
const RESET_SPREAD: Duration = Duration::from_secs(2);
/// Lines that were typed ahead; when there are more, the input waits.
const LINES_WAITING_MAX: usize = 64;

#[derive(Parser)]
#[command(about = "A chat in the terminal. Every line that you type is sent.")]
struct Flags {
    /// Where the server is
    #[arg(long, default_value = "http://127.0.0.1:3000")]
    url: String,
    /// The room to talk in
    #[arg(long, default_value = "general")]
    room: String,
    /// Show the direct messages of this person instead; a line that begins with @NAME is sent to NAME
    #[arg(long, conflicts_with = "room")]
    inbox: Option<String>,
    /// Under which name to write; nobody checks it
    #[arg(long)]
    name: String,
    /// For how many seconds to try to send the rest when the input has ended
    #[arg(long, default_value_t = 60)]
    give_up_secs: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let last_words_max = Duration::from_secs(flags.give_up_secs);
    let place = flags.inbox.map_or(Place::Room(flags.room), Place::Inbox);
    let server = Server::new(&flags.url, place).context("--url")?;
    let mut outbox = Outbox::new(flags.name, lines());
    let mut screen = Screen::default();
    let mut cursor = None;
    let mut failures = 0;
    let mut said = None;
    loop {
        let ended = match &cursor {
            Some(_) => server.follow(&mut cursor, &mut outbox, &mut screen).await,
            None => server.load_history(&mut cursor, &mut screen).await,
        };
        match ended {
            End::Joined => {}
            End::Done => return Ok(()),
            End::Reset => {
                screen.note("the server can not tell what happened meanwhile; loading the history again");
                sleep(RESET_SPREAD.mul_f64(rand::random())).await;
                cursor = None;
            }
            End::Broken { why, at_least } => {
                let lived = server.take_life();
                failures = if lived > Some(GOOD_AFTER) { 0 } else { failures + 1 };
                // Once for each break: most of the next attempts fail alike.
                let why = format!("{why:#}");
                if lived.is_some() || said.as_ref() != Some(&why) {
                    screen.note(&format!("offline, trying again: {why}"));
                }
                said = Some(why);
                let bound = BACKOFF_MAX.min(BACKOFF_FIRST * 2_u32.saturating_pow(failures));
                outbox.listen(at_least + bound.mul_f64(rand::random()), server.place(), &screen).await;
            }
        }
        if outbox.ended_at().is_some_and(|ended_at: Instant| ended_at.elapsed() > last_words_max) {
            match outbox.unanswered() {
                0 => anyhow::bail!("the server could not be reached"),
                count => anyhow::bail!("not confirmed, so perhaps not stored: {count} of what was typed"),
            }
        }
    }
}

/// The lines of the standard input. They are read by a thread of their own, which nobody has to wait for: a terminal may
/// never give another line.
fn lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(LINES_WAITING_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().split(b'\n') {
            match line.map(String::from_utf8) {
                Ok(Ok(line)) => {
                    let line = line.strip_suffix('\r').unwrap_or(&line).to_owned();
                    if sender.blocking_send(line).is_err() {
                        break;
                    }
                }
                Ok(Err(_)) => eprintln!("-- not sent: this line is not UTF-8"),
                Err(error) => {
                    eprintln!("-- the input can not be read any further: {error}");
                    break;
                }
            }
        }
    });
    receiver
}
