//! The settings as text: docs/configuration.md.

use std::fmt::Write;

use super::SETTINGS;

/// docs/configuration.md as it must stand in the repository.
pub fn reference() -> String {
    let mut text = String::from(
        "# Configuration\n\n\
         <!-- Generated from the table of settings in crates/mhnos-server/src/config/settings.rs. -->\n\n\
         Every setting is an environment variable and a flag of `mhnos-runtime serve`; the flag wins. A value\n\
         that is not accepted stops the start with exit status 2, and all mistakes are listed at once. Unknown\n\
         variables that start with `MHNOS_` are warned about. `mhnos-runtime serve --check` validates and prints\n\
         the effective settings.\n\n\
         | variable | flag | default | accepts | |\n|---|---|---|---|---|\n",
    );
    for setting in SETTINGS {
        let default =
            if setting.default.is_empty() { "none".to_owned() } else { format!("`{}`", setting.default) };
        let flag = if setting.is_secret() { "no flag".to_owned() } else { format!("`{}`", setting.flag()) };
        let _ = writeln!(
            text,
            "| `{}` | {} | {default} | {} | {} |",
            setting.variable, flag, setting.accepts, setting.about
        );
    }
    text
}
