//! The only place of these tests where time passes: to look again for what has no event, and for the moment
//! at which a bridge is killed, which is the variety that the test is about.

use std::time::Duration;

use super::PATIENCE;

/// Waits for what has no event.
pub(crate) async fn eventually(mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("it never came");
}

/// Lets time pass on this thread.
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
