//! A program's share of the CPU, and the service while programs take all they can.

use std::time::{Duration, Instant};

use mhnos_testing::{Server, Wire};
use serde_json::json;

use crate::options;

/// Works as long as the clock runs.
const BUSY: &str = "import time\nend = time.monotonic() + 3\nwhile time.monotonic() < end: pass\n";

/// Generous: the machine may be busy with other things.
const ANSWER: Duration = Duration::from_secs(5);

async fn cpu_ms(wire: &mut Wire, cores: f64) -> u64 {
    let options = json!({"pty": false, "limits": {"cpu": cores}});
    let spawn = json!({"processType": "python", "command": "busy.py", "options": options});
    let pid = wire.spawn(spawn).await;
    let (.., exit) = wire.run_to_exit(pid).await;
    assert_eq!(exit["code"], 0, "{exit}");
    exit["usage"]["cpuMs"].as_u64().expect("a number")
}

#[tokio::test]
async fn cpu_time_is_limited_and_the_service_answers_meanwhile() {
    let server = Server::start(options().on("root"));
    server.write("busy.py", BUSY);
    let mut wire = Wire::connect(server.address()).await;
    let mut other = Wire::connect(server.address()).await;
    let limited = cpu_ms(&mut wire, 0.05);
    let pings = async {
        let mut worst = Duration::ZERO;
        for id in 0..50 {
            let begin = Instant::now();
            other.request(json!({"type": "ping", "id": id})).await;
            worst = worst.max(begin.elapsed());
        }
        worst
    };
    let (limited, worst) = tokio::join!(limited, pings);
    // The control has all there is.
    let free = cpu_ms(&mut wire, 1.0).await;
    assert!(limited < 600, "{limited} ms in three seconds with a twentieth of a core");
    assert!(free > limited, "{free} ms without, {limited} ms with a limit");
    assert!(worst < ANSWER, "{worst:?} for a ping");
}
