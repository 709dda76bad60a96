//! What becomes of a task that panics.
//!
//! Tasks that all depend on end the bridge: those of processes, of listening sockets, of sandboxes' networks. The keeper
//! starts another, which finds everything where it was. A task that serves one connection takes only that with it.

use std::future::pending;

use tokio::task::{JoinError, JoinSet};

/// Resolves when one of these tasks panics. Tasks that have ended otherwise are let go of.
///
/// # Cancel safety
/// Nothing is missed.
pub(crate) async fn failure(tasks: &mut JoinSet<()>) -> JoinError {
    loop {
        match tasks.join_next().await {
            Some(Err(error)) if error.is_panic() => return error,
            Some(_) => {}
            None => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_and_no_other_end() {
        let mut tasks = JoinSet::new();
        tasks.spawn(async {});
        tasks.spawn(pending()).abort();
        let nothing = tokio::time::timeout(std::time::Duration::from_millis(20), failure(&mut tasks)).await;
        assert!(nothing.is_err() && tasks.is_empty(), "{nothing:?}");
        tasks.spawn(async { panic!("on purpose") });
        tasks.spawn(pending());
        assert!(failure(&mut tasks).await.to_string().contains("on purpose"));
    }
}
