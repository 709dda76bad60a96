//! What must hold for any sources of a worker, which programs in the workspace may have written. The target of `fuzz/`
//! calls this, and so does a test with the corpus and simple changes of it.

use super::{Arguments, Script, Worker};
use crate::{Sources, Version, limits};

/// Two files; what one imports of the other is up to them.
struct Two<'a>(&'a [u8], &'a [u8]);

impl Sources for Two<'_> {
    fn read(&self, path: &str, max: usize) -> Result<Option<Vec<u8>>, String> {
        assert!(path.starts_with("/w/"), "{path:?} lies outside");
        let content = match path {
            "/w/a/main.js" => self.0,
            "/w/a/b.js" | "/w/b.js" | "/w/a/b.ts" => self.1,
            _ => return Ok(None),
        };
        if content.len() > max { Err("too large".to_owned()) } else { Ok(Some(content.to_vec())) }
    }
}

/// The files are parted by a NUL byte.
pub fn worker(bytes: &[u8]) {
    let cut = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (main, other) = (&bytes[..cut], bytes.get(cut + 1..).unwrap_or_default());
    let Ok(script) = Script::collect("/w/a/main.js", "/w", &Two(main, other)) else { return };
    assert!(!script.modules.is_empty() && script.modules.len() <= limits::WORKER_MODULES);
    for module in &script.modules {
        assert!(
            !module.name.starts_with('/') && !module.name.split('/').any(|name| name == ".."),
            "{}",
            module.name
        );
    }
    let Ok(arguments) = Arguments::parse(&[], &[], Version(2026, 11, 17)) else { return };
    let configuration = Worker { script: &script, arguments: &arguments, variables: &[] }.configuration();
    assert!(configuration.is_ascii() || !bytes.is_ascii(), "a configuration is text");
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_worker_surprises() {
        mhnos_testing::replay("worker", super::worker);
    }
}
