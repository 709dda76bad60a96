//! `npm install express` through the proxy of a sandbox, beside the same in a sandbox that has the machine's own network.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use mhnos_testing::{Options, Server, Wire, WireOptions, tool};
use serde_json::json;

use crate::{SERVICE, median, report};

const ROUNDS: usize = 5;

/// What npm of this machine says of a setting; empty if nothing.
fn setting(name: &str) -> String {
    let output = Command::new(tool("npm")).args(["config", "get", name]).current_dir("/").output();
    let said = String::from_utf8(output.expect("npm").stdout).expect("text").trim().to_owned();
    if ["null", "undefined"].contains(&said.as_str()) { String::new() } else { said }
}

async fn install(server: &Server, script: &str) -> Duration {
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let options = json!({"pty": false, "timeout": 300_000});
    let begun = Instant::now();
    let pid = wire
        .spawn(json!({"processType": "shell", "command": "bash", "args": ["-c", script], "options": options}))
        .await;
    let (_, stderr, exit) = wire.run_to_exit(pid).await;
    assert_eq!(exit["code"], 0, "{stderr}\n{}", server.log());
    begun.elapsed()
}

pub(crate) async fn npm() {
    let (registry, cafile) = (setting("registry"), setting("cafile"));
    let host = registry.split_once("://").expect("a URL").1.split(['/', ':']).next().expect("a host");
    // npm says nothing for long, and the client takes that for an end.
    let mut script = format!(
        "while echo; do sleep 5; done & trap \"kill $!\" EXIT\nrm -rf app /tmp/npm; mkdir app && cd app && echo '{{}}' > package.json\nexport npm_config_registry={registry} npm_config_cache=/tmp/npm\n"
    );
    if !cafile.is_empty() {
        script.extend(["export npm_config_cafile=", &cafile, "\n"]);
    }
    script.extend([tool("npm").to_str().expect("text"), " install --no-audit --no-fund express >&2"]);
    let start = |mode: &str| {
        let options = Options::new(SERVICE).env("MHNOS_LOG_LEVEL", "warn").env("MHNOS_SANDBOX", mode);
        Server::start(options.env("MHNOS_EGRESS", format!("public,{host}")))
    };
    let servers = [start("strict"), start("relaxed")];
    let mut seconds = [Vec::new(), Vec::new()];
    for round in 0..=ROUNDS {
        // Each is the first in every other round; the very first fills the caches of the way there.
        for number in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
            let took = install(&servers[number], &script).await;
            if round > 0 {
                seconds[number].push(took.as_secs_f64());
            }
        }
    }
    let [through, direct] = &mut seconds;
    let (through, direct) = (median(through), median(direct));
    let figures = format!("{through:.2} s, without the proxy {direct:.2} s, ratio {:.2}", through / direct);
    report("npm install express through the proxy", &figures);
}
