//! What one sender sends is shown in the order of sending, also after a reload.

use std::path::Path;

use serde_json::json;

use crate::{
    harness::{TestServer, contents},
    programs::Language,
};

#[tokio::test]
async fn messages_of_one_socket_stand_in_the_order_of_sending_whatever_their_ids() {
    const COUNT: usize = 60;
    let server = TestServer::start().await;
    let mut follower = server.follow("room=general").await;
    let mut sender = server.follow("").await;
    let sent: Vec<String> = (0..COUNT).map(|n| n.to_string()).collect();
    // Falling ids, in the second of all of them: as clients that choose them at random may have them. Upper case, as some do.
    let id = |n: usize| format!("6745B2C3{:016X}", COUNT - n);
    for (n, content) in sent.iter().enumerate() {
        sender.send(json!({ "type": "send", "id": id(n), "sender": "Ana", "content": content })).await;
    }
    assert_eq!(follower.expect_contents(COUNT).await, sent, "live");
    let page = server.fetch(&format!("/api/messages?room=general&limit={COUNT}")).await;
    assert_eq!(contents(&page), sent, "after a reload");
    for n in 0..COUNT {
        assert_eq!(sender.expect("sent").await["id"], id(n), "in the client's own spelling");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_ids_of_one_page_rise() {
    let Some(node) = Language::node().await else {
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/static/client.js");
    let printed = node.run("ids.cjs", &[script.to_str().unwrap()]).await;
    let ids: Vec<&str> = printed.lines().collect();
    assert!(ids.len() == 200_000 && ids.iter().all(|id| id.len() == 24), "{}", ids.len());
    assert!(ids.is_sorted_by(|one, next| one < next));
}
