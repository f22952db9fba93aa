//! As operators may set the server up: under a path, for reading only, and behind a proxy that signs people in.

use std::sync::{Arc, Mutex};

use mongodb::bson::doc;
use thirtyfour::prelude::*;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
};

use crate::{
    chromium::{Window, with_chromium},
    harness::TestServer,
};

#[tokio::test]
async fn under_a_path_of_a_proxy_the_chat_lives_as_at_the_root() {
    with_chromium(async |chromium| {
        let server = TestServer::start_with(&["--base-path", "/apps/chat"]).await;
        chromium
            .window(Window::default(), async |ana| {
                ana.open_live(&server.url).await;
                ana.say("Ana", "¡Hola!").await;
                ana.wait_for_messages(&["¡Hola!"]).await;
                // A room that its list did not know, and the inbox that a name opens: made by the script.
                server.say("dev", "elsewhere").await;
                for path in ["/rooms/dev", "/inbox/Ana"] {
                    let link = format!("a.place[href='/apps/chat{path}']");
                    ana.wait(&link, async || ana.driver.find(By::Css(&link)).await.is_ok()).await;
                }
                // The name is in a cookie of this path.
                ana.open_live(&format!("{}/rooms/dev", server.url)).await;
                ana.wait_for_messages(&["elsewhere"]).await;
                let cookies = ana.driver.get_all_cookies().await.unwrap();
                let paths: Vec<_> = cookies.iter().filter_map(|cookie| cookie.path.clone()).collect();
                assert_eq!(paths, ["/apps/chat"]);
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_page_for_reading_only_is_live_and_has_no_form() {
    with_chromium(async |chromium| {
        let server = TestServer::start_with(&["--read-only"]).await;
        let messages = server.messages();
        messages.insert_one(doc! { "content": "before", "sender": "robot" }).await.unwrap();
        chromium
            .window(Window::default(), async |ana| {
                ana.open_live(&format!("{}/rooms/general", server.url)).await;
                ana.wait_for_messages(&["before"]).await;
                let date = mongodb::bson::DateTime::now();
                messages.insert_one(doc! { "content": "live", "sender": "robot", "date": date }).await.unwrap();
                ana.wait_for_messages(&["before", "live"]).await;
                assert!(ana.text_of("#read-only").await.contains("for reading only"));
                assert!(ana.driver.find_all(By::Css("form#composer, textarea")).await.unwrap().is_empty());
                ana.picture("read-only").await;
            })
            .await;
        server.stop().await;
    })
    .await;
}

/// The requests that brought a password.
type Signed = Arc<Mutex<Vec<String>>>;

/// A proxy that has signed José in, or `asks` for a password with each request. Returns where it listens, and what was asked
/// for with a password.
async fn proxy_of_jose(server: &TestServer, asks: bool) -> (String, Signed) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let address = server.url.trim_start_matches("http://").to_owned();
    let signed = Signed::default();
    let list = signed.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&address).await.unwrap();
            let list = asks.then(|| list.clone());
            // Either side may end it.
            tokio::spawn(async move { pass_signed(client, server, list).await.ok() });
        }
    });
    (url, signed)
}

/// Says in each request who asks, and passes everything else on. The page's requests have no bodies: what follows a head is
/// another one, or a WebSocket.
async fn pass_signed(client: TcpStream, server: TcpStream, signed: Option<Signed>) -> std::io::Result<()> {
    const REFUSAL: &[u8] = b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"chat\"\r\n\
        Content-Length: 0\r\nConnection: close\r\n\r\n";
    let (from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut from_client = BufReader::new(from_client);
    let may_pass = |head: &str| {
        let Some(signed) = &signed else { return true };
        let has_password = head.to_ascii_lowercase().contains("\r\nauthorization: basic ");
        if has_password {
            signed.lock().unwrap().extend(head.lines().next().map(str::to_owned));
        }
        has_password
    };
    let mut head = head_of(&mut from_client).await?;
    if head.is_empty() {
        return Ok(());
    }
    if !may_pass(&head) {
        return to_client.write_all(REFUSAL).await;
    }
    tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
    loop {
        to_server.write_all(format!("{}\r\nX-User: José\r\n\r\n", head.trim_end_matches("\r\n")).as_bytes()).await?;
        if head.to_ascii_lowercase().contains("\r\nupgrade: websocket") {
            copy(&mut from_client, &mut to_server).await?;
        }
        head = head_of(&mut from_client).await?;
        // On a connection that was good so far a browser asks again by another one, and is told there.
        if head.is_empty() || !may_pass(&head) {
            return Ok(());
        }
    }
}

/// The head of the next request; empty when there is none.
async fn head_of(client: &mut BufReader<OwnedReadHalf>) -> std::io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && client.read_line(&mut head).await? > 0 {}
    Ok(head)
}

#[tokio::test]
async fn a_page_that_was_opened_with_a_password_in_its_address_gets_all_that_it_asks_for() {
    with_chromium(async |chromium| {
        let server = TestServer::start_with(&["--trust-proxy", "127.0.0.1", "--sender-header", "X-User"]).await;
        let date = mongodb::bson::DateTime::now();
        server.messages().insert_one(doc! { "content": "Una canción", "sender": "Ana", "date": date }).await.unwrap();
        let (url, signed) = proxy_of_jose(&server, true).await;
        let url = url.replacen("http://", "http://jose:secret@", 1);
        chromium
            .window(Window::default(), async |jose| {
                jose.open_live(&format!("{url}/rooms/general")).await;
                jose.wait("he is counted", async || jose.text_of("#here").await == "1 here").await;
                jose.click("#search-link").await;
                jose.press("CANCION" + Key::Enter).await;
                let found = async || jose.text_of("#finder-results .text").await == "Una canción";
                jose.wait("it is found", found).await;
                jose.tell_chrome("Page.getAppManifest", serde_json::json!({})).await;
                jose.wait("the manifest is there", async || {
                    signed.lock().unwrap().iter().any(|request| request.starts_with("GET /static/manifest."))
                })
                .await;
                jose.open(&format!("{url}/status")).await;
                jose.wait("the plots are there", async || !jose.text_of("#plots").await.is_empty()).await;
                assert_eq!(jose.text_of("#word").await, "Live");
            })
            .await;
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn who_is_signed_in_is_not_asked_for_a_name_and_writes_under_it() {
    with_chromium(async |chromium| {
        let server = TestServer::start_with(&["--trust-proxy", "127.0.0.1", "--sender-header", "X-User"]).await;
        let (url, _) = proxy_of_jose(&server, false).await;
        chromium
            .window(Window::default(), async |jose| {
                jose.open(&format!("{url}/livez")).await;
                // What the browser knew of somebody else before.
                jose.ask::<()>("localStorage.setItem('corriente.name', 'Luis')").await;
                jose.open_live(&format!("{url}/rooms/general")).await;
                let field = jose.field("sender").await;
                assert_eq!(field.prop("value").await.unwrap().as_deref(), Some("José"));
                assert_eq!(field.prop("readOnly").await.unwrap().as_deref(), Some("true"));
                jose.field("content").await.send_keys("soy yo" + Key::Enter).await.unwrap();
                jose.wait_for_messages(&["soy yo"]).await;
                let own = "#rows li.own .sender";
                jose.wait("it is shown as his own", async || jose.driver.find(By::Css(own)).await.is_ok()).await;
                jose.picture("signed-in").await;
                let (_, page) = server.get("/api/messages?room=general").await;
                assert_eq!(page["messages"][0]["sender"], "José");

                // Past the proxy nobody is signed in.
                jose.open_live(&format!("{}/rooms/general", server.url)).await;
                jose.wait_for_messages(&["soy yo"]).await;
                assert!(jose.text_of("#read-only").await.contains("not signed in"));
                assert!(jose.driver.find_all(By::Css("form#composer, textarea")).await.unwrap().is_empty());
                jose.picture("signed-out").await;
            })
            .await;
        server.stop().await;
    })
    .await;
}
