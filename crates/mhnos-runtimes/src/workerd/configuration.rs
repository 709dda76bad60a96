//! The text of a generated configuration. Modules stand in it as literals, so that what runs is what was read
//! at the spawn, and workerd needs no files. The language: capnproto.org/language.html; the schema:
//! workerd.capnp of the workerd repository.

use std::fmt::Write;

use super::{
    arguments::Arguments,
    modules::{Module, ModuleKind, Script},
};

/// A worker about to be configured.
pub(super) struct Worker<'a> {
    pub(super) script: &'a Script,
    pub(super) arguments: &'a Arguments,
    /// Names of environment variables that become text bindings.
    pub(super) variables: &'a [&'a str],
}

impl Worker<'_> {
    pub(super) fn configuration(&self) -> String {
        let Arguments { port, compatibility_date, compatibility_flags, .. } = self.arguments;
        let strip = self.script.typescript.then_some("typescript_strip_types");
        let flags = compatibility_flags.iter().map(String::as_str).chain(strip).map(text);
        let bindings = self.variables.iter().map(|name| {
            let name = text(name);
            format!("(name = {name}, fromEnvironment = {name})")
        });
        format!(
            "using Workerd = import \"/workerd/workerd.capnp\";\n\n\
             const config :Workerd.Config = (\n  \
               services = [(name = \"main\", worker = .worker)],\n  \
               sockets = [(name = \"http\", address = \"127.0.0.1:{port}\", http = (), service = \"main\")],\n\
             );\n\n\
             const worker :Workerd.Worker = (\n  \
               {},\n  \
               compatibilityDate = {},\n  \
               compatibilityFlags = [{}],\n  \
               bindings = [{}],\n\
             );\n",
            self.source(),
            text(&compatibility_date.date()),
            join(flags),
            join(bindings),
        )
    }

    fn source(&self) -> String {
        match self.script.modules.as_slice() {
            [Module { kind: ModuleKind::ServiceWorker, content, .. }] => {
                format!("serviceWorkerScript = {}", bytes_as_text(content))
            }
            modules => format!(
                "modules = [\n    {},\n  ]",
                modules.iter().map(module).collect::<Vec<_>>().join(",\n    ")
            ),
        }
    }
}

fn module(module: &Module) -> String {
    let (field, content) = match module.kind {
        ModuleKind::EsModule | ModuleKind::ServiceWorker => ("esModule", bytes_as_text(&module.content)),
        ModuleKind::CommonJs => ("commonJsModule", bytes_as_text(&module.content)),
        ModuleKind::Json => ("json", bytes_as_text(&module.content)),
        ModuleKind::Text => ("text", bytes_as_text(&module.content)),
        ModuleKind::Wasm => ("wasm", data(&module.content)),
        ModuleKind::Data => ("data", data(&module.content)),
    };
    format!("(name = {}, {field} = {content})", text(&module.name))
}

fn join(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// Text is UTF-8; what is not becomes U+FFFD, as in every JavaScript engine that reads a file.
fn bytes_as_text(content: &[u8]) -> String {
    text(&String::from_utf8_lossy(content))
}

/// A text literal: quotes, backslashes and control characters escaped, all else as it is.
fn text(content: &str) -> String {
    let mut literal = String::with_capacity(content.len() + content.len() / 16 + 2);
    literal.push('"');
    for character in content.chars() {
        match character {
            '"' => literal.push_str("\\\""),
            '\\' => literal.push_str("\\\\"),
            '\n' => literal.push_str("\\n"),
            '\t' => literal.push_str("\\t"),
            control if control.is_ascii_control() => {
                // Writing to a String cannot fail.
                let _ = write!(literal, "\\x{:02x}", control as u32);
            }
            other => literal.push(other),
        }
    }
    literal.push('"');
    literal
}

/// A data literal.
fn data(content: &[u8]) -> String {
    let mut literal = String::with_capacity(content.len() * 2 + 4);
    literal.push_str("0x\"");
    for byte in content {
        let _ = write!(literal, "{byte:02x}");
    }
    literal.push('"');
    literal
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Version;

    fn module(name: &str, kind: ModuleKind, content: &[u8]) -> Module {
        Module { name: name.to_owned(), kind, content: content.to_vec() }
    }

    fn configuration(modules: Vec<Module>, typescript: bool, variables: &[&str], port: u16) -> String {
        let script = Script { modules, typescript };
        let arguments = Arguments {
            port,
            compatibility_date: Version(2026, 8, 3),
            compatibility_flags: vec!["nodejs_compat".to_owned()],
            flags: Vec::new(),
        };
        Worker { script: &script, arguments: &arguments, variables }.configuration()
    }

    #[test]
    fn a_worker_of_modules_is_written_out_whole() {
        let modules = vec![
            module("worker.ts", ModuleKind::EsModule, "export default {} // \"é\\\"\r\n\t\0".as_bytes()),
            module("lib/a.cjs", ModuleKind::CommonJs, b"1"),
            module("a.json", ModuleKind::Json, b"{}"),
            module("a.txt", ModuleKind::Text, b"\xff"),
            module("a.wasm", ModuleKind::Wasm, b"\0asm"),
            module("a.bin", ModuleKind::Data, b""),
        ];
        let expected = r#"using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [(name = "main", worker = .worker)],
  sockets = [(name = "http", address = "127.0.0.1:3000", http = (), service = "main")],
);

const worker :Workerd.Worker = (
  modules = [
    (name = "worker.ts", esModule = "export default {} // \"é\\\"\x0d\n\t\x00"),
    (name = "lib/a.cjs", commonJsModule = "1"),
    (name = "a.json", json = "{}"),
    (name = "a.txt", text = "�"),
    (name = "a.wasm", wasm = 0x"0061736d"),
    (name = "a.bin", data = 0x""),
  ],
  compatibilityDate = "2026-08-03",
  compatibilityFlags = ["nodejs_compat", "typescript_strip_types"],
  bindings = [(name = "A", fromEnvironment = "A"), (name = "B\"", fromEnvironment = "B\"")],
);
"#;
        assert_eq!(configuration(modules, true, &["A", "B\""], 3000), expected);
    }

    #[test]
    fn a_service_worker_is_a_script() {
        let script = vec![module("worker.js", ModuleKind::ServiceWorker, b"addEventListener('fetch', f)")];
        let text = configuration(script, false, &[], 0);
        assert!(text.contains("\n  serviceWorkerScript = \"addEventListener('fetch', f)\",\n"), "{text}");
        assert!(text.contains("bindings = [],") && text.contains("\"127.0.0.1:0\""), "{text}");
    }
}
