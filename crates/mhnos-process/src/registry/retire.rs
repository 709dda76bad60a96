//! Retention: what has ended stays for a while, in number and time, and is then forgotten by the keeper too.

use std::sync::Arc;

use mhnos_keeper::channel::ToKeeper;
use tokio::time::sleep_until;

use super::Inner;

/// Runs as long as the driver does.
pub(super) async fn run(inner: Arc<Inner>) {
    loop {
        sweep(&inner).await;
        let next = inner.lock().next_expiry(inner.settings.retain_for);
        match next {
            None => inner.retire.notified().await,
            Some(at) => tokio::select! {
                () = inner.retire.notified() => {}
                () = sleep_until(at) => {}
            },
        }
    }
}

/// Counts first, forgets then: a bridge that dies between the two leaves a note that says so, and the next
/// one neither counts twice nor loses count.
async fn sweep(inner: &Inner) {
    let (expired, note_due) = {
        let mut table = inner.lock();
        let expired = table.expire(inner.settings.retain_count, inner.settings.retain_for);
        (expired, std::mem::take(&mut table.note_due))
    };
    if expired.is_empty() && !note_due {
        return;
    }
    if let Err(error) = inner.send_service_note().await {
        tracing::debug!(%error, "the keeper is gone");
        return;
    }
    for process in expired {
        process.post(|mail| mail.forget = true);
        if let Err(error) = inner.link.send(&ToKeeper::Forget { pid: process.pid }).await {
            tracing::debug!(%error, "the keeper is gone");
            return;
        }
    }
}
