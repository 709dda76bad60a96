//! docs/protocol.md does not lie: its examples, played against the service.

use mhnos_testing::doc_examples::{play, sessions};
use mhnos_testing::{Wire, WireOptions};

#[tokio::test]
async fn the_examples_of_the_protocol_document_happen_as_they_stand_there() {
    let server = crate::start();
    let sessions =
        sessions(include_str!("../../../../docs/protocol.md")).expect("the document is well formed");
    assert!(sessions.len() > 10, "the document has examples");
    for session in sessions {
        let mut wire = Wire::open(server.address(), WireOptions::modern()).await.expect("a connection");
        play(&mut wire, &session).await.unwrap_or_else(|error| panic!("{error}"));
    }
}
