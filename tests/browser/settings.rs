//! As operators may set the server up: under a path, for reading only, and behind a proxy that signs people in.

use mongodb::bson::doc;
use thirtyfour::prelude::*;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy},
    net::{TcpListener, TcpStream},
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

/// A proxy that has signed José in. Returns where it listens.
async fn proxy_of_jose(server: &TestServer) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let address = server.url.trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&address).await.unwrap();
            // Either side may end it.
            tokio::spawn(async move { pass_signed(client, server).await.ok() });
        }
    });
    url
}

/// Says in each request who asks, and passes everything else on. The page's requests have no bodies: what follows a head is
/// another one, or a WebSocket.
async fn pass_signed(client: TcpStream, server: TcpStream) -> std::io::Result<()> {
    let (from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
    let mut from_client = BufReader::new(from_client);
    let (mut line, mut is_upgrade) = (String::new(), false);
    while from_client.read_line(&mut line).await? > 0 {
        is_upgrade |= line.to_ascii_lowercase().starts_with("upgrade: websocket");
        let is_end = line == "\r\n";
        if is_end {
            to_server.write_all("X-User: José\r\n".as_bytes()).await?;
        }
        to_server.write_all(line.as_bytes()).await?;
        if is_end && is_upgrade {
            copy(&mut from_client, &mut to_server).await?;
        }
        line.clear();
    }
    Ok(())
}

#[tokio::test]
async fn who_is_signed_in_is_not_asked_for_a_name_and_writes_under_it() {
    with_chromium(async |chromium| {
        let server = TestServer::start_with(&["--trust-proxy", "127.0.0.1", "--sender-header", "X-User"]).await;
        let url = proxy_of_jose(&server).await;
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
