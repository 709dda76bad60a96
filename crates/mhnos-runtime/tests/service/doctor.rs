//! `doctor` says what a service would find, and its exit status how bad that is.

#![allow(clippy::disallowed_methods, reason = "doctor is a program to start")]

use std::process::{Command, Output};

use mhnos_testing::{Scratch, Server, Wire, host::Host};
use serde_json::{Value, json};

use crate::{SERVICE, abuse::strict_hosts, options};

fn doctor(host: &str, arguments: &[&str]) -> Output {
    // A workspace of the user who will start it.
    let scratch = Scratch::new();
    Host::named(host).give(scratch.path());
    let mut command = Command::new(std::path::Path::new(SERVICE).with_file_name("mhnos-host"));
    command.args([host, SERVICE, "doctor", "--workspace"]).arg(scratch.path()).args(arguments);
    command.env_clear().output().expect("mhnos-host was built")
}

fn find<'a>(report: &'a Value, kind: &str, name: &str) -> &'a Value {
    let all = report[kind].as_array().expect("a list");
    all.iter().find(|finding| finding["name"] == name).unwrap_or_else(|| panic!("no {name} in {report}"))
}

#[test]
fn it_finds_what_each_host_gives_and_names_a_remedy_for_the_rest() {
    for (host, status) in [("root", 0), ("user", 1), ("masked-proc", 1), ("container", 1), ("one-user", 1)] {
        let output = doctor(host, &["--json"]);
        let text = String::from_utf8_lossy(&output.stdout);
        let report: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{host}: {output:?}"));
        assert_eq!(output.status.code(), Some(status), "{host}: {text}");
        assert_eq!(report["tier"], Host::named(host).tier.as_str(), "{host}");
        for tier in report["tiers"].as_array().expect("tiers").iter().filter(|tier| tier["ok"] == false) {
            assert!(tier["reason"].is_string() && tier["remedy"].is_string(), "{host}: {tier}");
        }
        assert_eq!(find(&report, "layers", "seccomp")["ok"], true, "{host}");
    }
}

/// What is tried first must leave nothing behind for what is tried next: T3+ has users of its own.
#[test]
fn a_tier_that_cannot_be_had_stands_in_no_other_ones_way() {
    let host = "root-without-landlock";
    let report: Value = serde_json::from_slice(&doctor(host, &["--json"]).stdout).expect("JSON");
    for (tier, ok) in [("T1", true), ("T2", true), ("T3+", false), ("T3", false)] {
        assert_eq!(find(&report, "tiers", tier)["ok"], ok, "{report}");
    }
    let server = Server::start(options().on(host));
    let health: Value = serde_json::from_str(&server.get("/health").body).expect("JSON");
    assert_eq!(health["sandbox"]["tier"], report["tier"], "{health}");
}

/// In the process that would be a program, when all its walls stand.
#[test]
fn a_step_refused_in_the_self_tests_own_process_is_named_with_what_would_allow_it() {
    let host = "without-a-late-step";
    let output = doctor(host, &["--json"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let failure = Server::try_start(options().on(host)).expect_err("must not start");
    for (tier, step) in
        [("T1", "set its channel apart"), ("T2", "set its channel apart"), ("T3", "set a ruleset apart")]
    {
        let told = find(&report, "tiers", tier);
        let told = (told["reason"].as_str(), told["remedy"].as_str());
        let (Some(reason), Some(remedy)) = told else { panic!("{tier}: {report}") };
        assert_eq!(reason, format!("{step} (Operation not permitted (os error 1))"), "{tier}");
        assert!(remedy.contains("system call filter") && !remedy.contains("mount"), "{tier}: {remedy}");
        let line = format!("{tier}: {reason}; {remedy}");
        assert!(failure.stderr.contains(&line), "{line}\n{}", failure.stderr);
    }
}

/// Names of layers in order, with the tier.
fn in_force(tier: &Value, layers: &Value) -> (String, Vec<String>) {
    let name = |layer: &Value| layer.as_str().unwrap_or_default().to_owned();
    let mut names: Vec<String> = layers.as_array().into_iter().flatten().map(name).collect();
    names.sort();
    (tier.as_str().unwrap_or_default().to_owned(), names)
}

#[tokio::test]
async fn spawned_list_status_health_and_doctor_say_the_same_in_every_tier() {
    for host in strict_hosts() {
        let server = Server::start(options().on(host));
        let mut wire = Wire::connect(server.address()).await;
        let spawn = json!({"type": "spawn", "id": 1, "processType": "shell", "command": "bash", "args": ["-c", "exec sleep 1000"]});
        let spawned = wire.request(spawn).await;
        let list = wire.request(json!({"type": "list", "id": 2})).await;
        let status = wire.request(json!({"type": "status", "id": 3})).await;
        let of = |message: &Value| in_force(&message["isolation"]["tier"], &message["isolation"]["layers"]);
        let told = of(&spawned);
        assert!(told.1.len() > 5, "{host}: {spawned}");
        assert_eq!(of(&list["processes"][0]), told, "{host}: {list}");
        assert_eq!(of(&status), told, "{host}: {status}");
        let health: Value = serde_json::from_str(&server.get("/health").body).expect("JSON");
        assert_eq!(health["sandbox"]["tier"], told.0.as_str(), "{host}: {health}");
        assert_eq!(health["sandbox"]["mode"], status["config"]["sandboxMode"], "{host}: {health}");
        let output = doctor(host, &["--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let found = report["layers"].as_array().expect("layers").iter().filter(|layer| layer["ok"] == true);
        let found: Value = found.map(|layer| layer["name"].clone()).collect();
        assert_eq!(in_force(&report["tier"], &found), told, "{host}: {report}");
        let said = String::from_utf8(doctor(host, &[]).stdout).expect("text");
        let own_network = told.1.iter().any(|layer| layer == "net-namespace");
        assert_eq!(said.contains("programs have their own"), own_network, "{host}: {said}");
    }
}

/// All that a tier is made of, and what says so.
const NAMESPACES: [&str; 6] = [
    "user-namespace",
    "mount-namespace",
    "pid-namespace",
    "ipc-namespace",
    "uts-namespace",
    "cgroup-namespace",
];

#[test]
fn each_layer_that_is_missing_is_named_with_what_would_give_it() {
    for host in strict_hosts() {
        let report: Value = serde_json::from_slice(&doctor(host, &["--json"]).stdout).expect("JSON");
        for layer in report["layers"].as_array().expect("layers").iter().filter(|layer| layer["ok"] == false)
        {
            assert!(layer["remedy"].as_str().is_some_and(|text| !text.is_empty()), "{host}: {layer}");
        }
        let said = String::from_utf8(doctor(host, &[]).stdout).expect("text");
        for layer in report["layers"].as_array().expect("layers") {
            let mark = if layer["ok"] == true { "yes" } else { "NO" };
            let line = format!("layer {:<19}{mark}", layer["name"].as_str().expect("a name"));
            assert!(said.lines().any(|said| said == line), "{host}: {line}: {said}");
        }
        let namespaces = NAMESPACES.iter().chain(&["net-namespace"]);
        if report["tier"] == "T3+" || report["tier"] == "T3" {
            let of_its_tier = &find(&report, "tiers", "T1")["remedy"];
            for name in namespaces {
                let layer = find(&report, "layers", name);
                assert_eq!((&layer["ok"], &layer["remedy"]), (&json!(false), of_its_tier), "{host}: {layer}");
            }
        } else {
            for name in namespaces {
                assert_eq!(find(&report, "layers", name)["ok"], true, "{host}");
            }
        }
    }
    let report: Value = serde_json::from_slice(&doctor("one-user", &["--json"]).stdout).expect("JSON");
    let users = find(&report, "layers", "separate-uid");
    assert!(users["remedy"].as_str().is_some_and(|text| text.contains("--cap-add SETUID")), "{users}");
}

/// "landlock" alone would say too much of an old kernel.
#[tokio::test]
async fn what_an_older_landlock_does_not_cover_is_told_with_the_kernel_that_does() {
    let host = "container-linux-6.1";
    let report: Value = serde_json::from_slice(&doctor(host, &["--json"]).stdout).expect("JSON");
    assert_eq!(find(&report, "layers", "landlock")["ok"], true, "{report}");
    let later =
        [("landlock-truncate", "Linux 6.2"), ("net-proxy", "Linux 6.7"), ("landlock-scopes", "Linux 6.12")];
    for (name, kernel) in later {
        let layer = find(&report, "layers", name);
        assert_eq!(layer["ok"], false, "{layer}");
        assert!(layer["remedy"].as_str().is_some_and(|text| text.contains(kernel)), "{layer}");
    }
    let server = Server::start(options().on(host));
    let mut wire = Wire::connect(server.address()).await;
    let status = wire.request(json!({"type": "status", "id": 1})).await;
    let (_, told) = in_force(&status["isolation"]["tier"], &status["isolation"]["layers"]);
    assert!(told.iter().any(|layer| layer == "landlock"), "{status}");
    assert!(later.iter().all(|(name, _)| !told.iter().any(|layer| layer == name)), "{status}");
    // The control: this kernel's own has them all.
    let report: Value = serde_json::from_slice(&doctor("container", &["--json"]).stdout).expect("JSON");
    for (name, _) in later {
        assert_eq!(find(&report, "layers", name)["ok"], true, "{report}");
    }
}

/// It would cost programs to move files from one directory to another, so namespaces do without it; and of signals it knows
/// nothing, so where it is all there is nothing starts.
#[tokio::test]
async fn with_the_first_landlock_the_upper_tiers_do_without_and_one_user_for_all_is_refused() {
    const MOVE: &str =
        "import os; [os.mkdir(name) for name in 'ab']; open('a/f', 'w'); os.rename('a/f', 'b/f')";
    let upper = "user-first-landlock";
    let report: Value = serde_json::from_slice(&doctor(upper, &["--json"]).stdout).expect("JSON");
    assert_eq!(report["tier"], "T1", "{report}");
    let layer = find(&report, "layers", "landlock");
    assert_eq!(layer["ok"], false, "{layer}");
    assert!(layer["remedy"].as_str().is_some_and(|text| text.contains("Linux 5.19")), "{layer}");
    for (host, code, in_force) in [(upper, 0, false), ("container-linux-5.15", 1, true)] {
        let server = Server::start(options().on(host));
        let mut wire = Wire::connect(server.address()).await;
        let spawn =
            json!({"processType": "python", "command": "-c", "args": [MOVE], "type": "spawn", "id": 1});
        let spawned = wire.request(spawn).await;
        let told = spawned["isolation"]["layers"].as_array().expect("layers").contains(&json!("landlock"));
        assert_eq!(told, in_force, "{host}: {spawned}");
        let (stdout, stderr, exit) = wire.run_to_exit(spawned["pid"].as_u64().expect("a pid")).await;
        assert_eq!(exit["code"], code, "{host}: {exit} {stdout}{stderr}");
        assert_eq!(stderr.contains("Invalid cross-device link"), code == 1, "{host}: {stderr}");
    }
    let alone = "one-user-first-landlock";
    let output = doctor(alone, &["--json"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let failure = Server::try_start(options().on(alone)).expect_err("must not start");
    for expected in ["T3: find Landlock's scopes", "Linux 6.12"] {
        assert!(failure.stderr.contains(expected), "{expected}: {}", failure.stderr);
    }
}

#[test]
fn a_host_below_the_floor_is_the_worst_status() {
    let output = doctor("one-user", &["--sandbox-min-tier", "T2"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("would refuse to start"), "{text}");
    assert!(text.contains("kernel.unprivileged_userns_clone=1"), "{text}");
    // Nothing of a service that does not start is in force, and each layer says what would give it.
    let output = doctor("one-user", &["--sandbox-min-tier", "T2", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let layers = report["layers"].as_array().expect("layers");
    for name in
        NAMESPACES.iter().chain(&["net-namespace", "landlock", "seccomp", "no-capabilities", "cgroup"])
    {
        assert_eq!(find(&report, "layers", name)["ok"], false, "{report}");
        assert!(text.lines().any(|line| line == format!("layer {name:<19}NO")), "{name}: {text}");
    }
    assert!(layers.iter().all(|layer| layer["ok"] == false && layer["remedy"].is_string()), "{report}");
    let of_its_tier = &find(&report, "tiers", "T1")["remedy"];
    assert_eq!(&find(&report, "layers", "pid-namespace")["remedy"], of_its_tier);
    assert_eq!(&find(&report, "layers", "seccomp")["remedy"], of_its_tier);
}

#[test]
fn an_origin_is_explained_with_the_setting_and_what_browsers_do() {
    let explained = |origin: &str, environment: &[(&str, &str)]| {
        let mut command = Command::new(crate::SERVICE);
        command.args(["doctor", "--origin", origin]).env_clear().envs(environment.iter().copied());
        let output = command.output().expect("it starts");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    let (status, said) = explained("http://localhost:8080", &[]);
    assert_eq!(status, Some(0), "{said}");
    let (status, said) = explained("https://os.example.org", &[]);
    assert!(status == Some(2) && said.contains("MHNOS_ALLOWED_ORIGINS=https://os.example.org"), "{said}");
    let (status, said) =
        explained("https://os.example.org", &[("MHNOS_ALLOWED_ORIGINS", "https://os.example.org")]);
    assert!(status == Some(1) && said.contains("Safari") && said.contains("is asked"), "{said}");
}
