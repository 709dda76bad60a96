//! The way out: what programs reach through the policy, and what they do not, asked by the programs people use.
//!
//! The outside is a server of the test on a loopback address of its own (127.x.y.z), which a rule opens: to a program
//! in its own network that address is as far away as any other.

mod outside;

use mhnos_testing::{Options, Server, Wire};
use serde_json::{Value, json};

use self::outside::Outside;
use crate::options;

/// Tests that need walls of their own say which the host must give.
fn policy(egress: &str) -> Options {
    options().env("MHNOS_EGRESS", egress).env("MHNOS_SANDBOX_MIN_TIER", "T2")
}

/// Runs a command line in a shell inside; what it printed, both streams, and its exit.
async fn shell(server: &Server, script: &str) -> (String, String, Value) {
    let mut wire = Wire::connect(server.address()).await;
    let arguments = json!(["-c", script]);
    let options = json!({"pty": false, "timeout": 120_000});
    let pid = wire
        .spawn(json!({"processType": "shell", "command": "bash", "args": arguments, "options": options}))
        .await;
    wire.run_to_exit(pid).await
}

/// The same for one that must end well; what it printed on stdout.
async fn said(server: &Server, script: &str) -> String {
    let (stdout, stderr, exit) = shell(server, script).await;
    assert_eq!(exit["code"], 0, "{script}\n--- stdout\n{stdout}\n--- stderr\n{stderr}\n--- log\n{}", server.log());
    stdout
}

#[tokio::test]
async fn a_rule_opens_what_it_names_and_nothing_else() {
    let outside = Outside::start();
    let other = Outside::start();
    let server = Server::start(policy(&outside.rule()));
    let url = outside.url();
    assert_eq!(said(&server, &format!("curl -sS {url}/hello")).await, "GET /hello");
    let (stdout, stderr, _) =
        shell(&server, &format!("curl -sS -w '%{{http_code}}' {}/hello", other.url())).await;
    assert!(stdout.ends_with("rule not-listed\n403"), "{stdout} {stderr}");
    assert_eq!(other.requests(), 0);
    // The same without the proxy: there is nobody.
    let (_, stderr, exit) = shell(&server, &format!("curl -sS --noproxy '*' {url}/hello")).await;
    assert_eq!(exit["code"], 7, "{stderr}");
    assert!(server.log().contains("refused a way out"), "{}", server.log());
}
