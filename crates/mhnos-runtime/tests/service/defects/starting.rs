//! What can start does, what cannot is an error, and neither takes a place it should not.

use mhnos_testing::{Server, Wire};
use serde_json::json;

use crate::{
    options,
    requests::{bash, with_options},
};

/// Defect 3.
#[tokio::test]
async fn a_program_that_cannot_start_is_an_error_and_takes_no_place() {
    let server = Server::start(options().env("MHNOS_MAX_PROCESSES", "2"));
    server.write("missing-interpreter", "#!/missing/interpreter\n");
    let mut wire = Wire::connect(server.address()).await;
    let wrong = [
        with_options(bash("true"), json!({"cwd": "/missing"})),
        json!({"processType": "shell", "command": "/missing/shell"}),
        json!({"processType": "shell", "command": "/missing-interpreter"}),
        json!({"processType": "node", "command": "missing.js"}),
        json!({"processType": "python", "command": "missing.py"}),
        json!({"processType": "workerd", "command": "/missing.capnp"}),
    ];
    for _ in 0..3 {
        for spawn in &wrong {
            let mut spawn = spawn.clone();
            spawn["type"] = "spawn".into();
            spawn["id"] = 1.into();
            let answer = wire.request(spawn.clone()).await;
            assert_eq!(answer["type"], "error", "{spawn}: {answer}");
            let names_it = answer["error"].as_str().is_some_and(|text| text.contains("missing"));
            assert!(names_it, "{spawn}: {answer}");
        }
    }
    let list = wire.request(json!({"type": "list", "id": 2, "all": true})).await;
    assert_eq!((&list["processes"], &list["stats"]["active"]), (&json!([]), &json!(0)), "{list}");
    let pid = wire.spawn(bash("echo still")).await;
    assert_eq!(wire.run_to_exit(pid).await.0, "still\n");
}

/// Defect 10: two hundred at once, from three clients.
#[tokio::test]
async fn a_burst_of_spawns_never_passes_the_limit() {
    const LIMIT: usize = 3;
    let server = Server::start(options().env("MHNOS_MAX_PROCESSES", LIMIT.to_string()));
    let mut wires = Vec::new();
    for _ in 0..3 {
        wires.push(Wire::connect(server.address()).await);
    }
    let total = 201;
    for id in 0..total {
        let mut spawn = if id % 2 == 0 { bash("sleep 1000") } else { json!({"processType": "shell"}) };
        spawn["type"] = "spawn".into();
        spawn["id"] = id.into();
        wires[id % 3].send(&spawn).await;
    }
    let mut spawned = 0;
    for id in 0..total {
        let answer = wires[id % 3].next_where(|message| message["id"] == id).await;
        if answer["type"] == "spawned" {
            spawned += 1;
        } else {
            assert_eq!(answer["code"], "PROCESS_LIMIT", "{answer}");
            assert_eq!(answer["error"], format!("Maximum process limit reached ({LIMIT})"));
        }
    }
    assert_eq!(spawned, LIMIT);
    let list = wires[0].request(json!({"type": "list", "id": "list"})).await;
    let listed = list["processes"].as_array().map(Vec::len);
    assert_eq!((&list["stats"]["active"], listed), (&json!(LIMIT), Some(LIMIT)), "{list}");
    // A place that becomes free can be taken again.
    let pid = list["processes"][0]["pid"].clone();
    let killed =
        wires[0].request(json!({"type": "kill", "id": "kill", "pid": pid, "signal": "SIGKILL"})).await;
    assert_eq!(killed["type"], "killed", "{killed}");
    let pid = wires[0].spawn(bash("echo fits")).await;
    assert_eq!(wires[0].run_to_exit(pid).await.0, "fits\n");
}
