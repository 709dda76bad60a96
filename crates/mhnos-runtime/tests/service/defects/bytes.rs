//! Bytes that are no text arrive as they were, in both directions.

use mhnos_testing::{Server, Wire, WireOptions};
use serde_json::json;

use crate::{
    requests::{bash, node, with_options},
    start,
};

/// Defect 4.
#[tokio::test]
async fn five_megabytes_of_random_bytes_survive_base64_and_a_write_through_cat() {
    let server = start();
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let script = "const b = require('crypto').randomBytes(5 << 20); require('fs').writeFileSync('random', b); process.stdout.write(b)";
    let pid = wire.spawn(with_options(node(script), json!({"encoding": "base64"}))).await;
    let mut pieces = Vec::new();
    loop {
        let message = wire.next_where(|message| message["pid"] == pid && message["id"].is_null()).await;
        match message["type"].as_str() {
            Some("stdout") => pieces.push(message["data"].as_str().expect("text").to_owned()),
            Some("exit") => break,
            _ => {}
        }
    }
    // Decoded by another program than ours; what it decodes goes through `cat`, into a file.
    let cat = wire.spawn(bash("cat > through")).await;
    let decoded = Server::workspace(&server).join("decoded");
    std::fs::write(&decoded, pieces.join("\n")).expect("the workspace is ours to write");
    let check = "const fs = require('fs'); const d = Buffer.concat(fs.readFileSync('decoded', 'utf8').split('\\n').map((l) => Buffer.from(l, 'base64'))); \
                 console.log(d.equals(fs.readFileSync('random')), d.length)";
    let check = wire.spawn(node(check)).await;
    assert_eq!(wire.run_to_exit(check).await.0, "true 5242880\n");
    for piece in &pieces {
        wire.send(&json!({"type": "write", "pid": cat, "data": piece, "encoding": "base64"})).await;
    }
    wire.send(&json!({"type": "closeStdin", "pid": cat})).await;
    wire.run_to_exit(cat).await;
    let workspace = server.workspace();
    let (sent, received) =
        (std::fs::read(workspace.join("random")), std::fs::read(workspace.join("through")));
    assert!(sent.expect("written by node") == received.expect("written by cat"));
}
