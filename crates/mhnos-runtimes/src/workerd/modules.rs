//! The modules of a worker: its source file and what that imports by relative paths, and so on.
//!
//! Imports are found by looking for a specifier that begins with `./` or `../` after `from`, `import`, `import(`
//! or `require(`, in the text as it is. This is no parser, on purpose (see the parent module): it runs in the
//! bridge, in one pass without recursion, and where it is fooled (an import in a comment) a module is carried
//! that nobody asks for, or that is not there and not missed. A module that is really missing is named by
//! workerd, as is a package: `import "hono"` needs a bundler first.
//!
//! A module is named by the path it is imported by, relative to the deepest directory that holds them all, so
//! that workerd's own resolution finds it and its messages read as the author's files do. An import may leave
//! out `.ts`, `.js` or `.mjs`, and may say `.js` for a `.ts` file, as TypeScript's authors do; a file imported
//! in two spellings becomes two modules.

use std::collections::{BTreeMap, HashSet, VecDeque};

use super::has_extension;
use crate::{RecipeError, Sources, limits};

/// All of a worker's modules; the first is the one that is started.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) modules: Vec<Module>,
    /// Whether types have to be stripped.
    pub(super) typescript: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Module {
    pub(super) name: String,
    pub(super) kind: ModuleKind,
    pub(super) content: Vec<u8>,
}

/// What a module is to workerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ModuleKind {
    EsModule,
    /// A script in the older syntax, which adds an event listener and exports nothing.
    ServiceWorker,
    CommonJs,
    Json,
    Text,
    Wasm,
    Data,
}

impl ModuleKind {
    fn of(path: &str) -> Option<Self> {
        let (_, extension) = path.rsplit('/').next()?.rsplit_once('.')?;
        Some(match extension {
            "js" | "mjs" | "ts" | "mts" => Self::EsModule,
            "cjs" => Self::CommonJs,
            "json" => Self::Json,
            "txt" | "html" | "css" | "sql" | "md" => Self::Text,
            "wasm" => Self::Wasm,
            "bin" => Self::Data,
            _ => return None,
        })
    }
}

impl Script {
    /// Reads the source file at `path` and all it imports, as far as it lies in `workspace`.
    pub(super) fn collect(path: &str, workspace: &str, sources: &dyn Sources) -> Result<Self, RecipeError> {
        let mut collection = Collection {
            workspace,
            sources,
            named: HashSet::new(),
            to_read: VecDeque::new(),
            found: BTreeMap::new(),
            bytes: 0,
            typescript: false,
        };
        if ModuleKind::of(path) != Some(ModuleKind::EsModule) {
            let text = "a worker is a .capnp configuration or a .js, .mjs, .ts or .mts source";
            return Err(collection.refused(path, text));
        }
        let Some(content) = collection.read(path)? else {
            return Err(collection.refused(path, "no such file"));
        };
        collection.note_language(path);
        let main = normal(path);
        if is_service_worker(path, &content) {
            let module =
                Module { name: base_name(&main).to_owned(), kind: ModuleKind::ServiceWorker, content };
            return Ok(Self { modules: vec![module], typescript: false });
        }
        collection.named.insert(main.clone());
        collection.note_imports(&main, &content)?;
        collection.found.insert(main.clone(), (ModuleKind::EsModule, content));
        while let Some(name) = collection.to_read.pop_front() {
            collection.add(name)?;
        }
        Ok(collection.into_script(&main))
    }
}

/// Modules by their absolute names.
struct Collection<'a> {
    workspace: &'a str,
    sources: &'a dyn Sources,
    /// Whatever has been imported, there or not: nothing is looked for twice.
    named: HashSet<String>,
    to_read: VecDeque<String>,
    found: BTreeMap<String, (ModuleKind, Vec<u8>)>,
    bytes: usize,
    typescript: bool,
}

impl Collection<'_> {
    /// Adds the module that is imported as `name`, if there is one, and notes what it imports itself.
    fn add(&mut self, name: String) -> Result<(), RecipeError> {
        for candidate in candidates(&name) {
            let Some(kind) = ModuleKind::of(&candidate) else { continue };
            let Some(content) = self.read(&candidate)? else { continue };
            if self.found.len() >= limits::WORKER_MODULES {
                let text = format!("a worker may have at most {} modules", limits::WORKER_MODULES);
                return Err(self.refused(&candidate, &text));
            }
            self.note_language(&candidate);
            if matches!(kind, ModuleKind::EsModule | ModuleKind::CommonJs) {
                self.note_imports(&name, &content)?;
            }
            self.found.insert(name, (kind, content));
            return Ok(());
        }
        Ok(())
    }

    fn note_imports(&mut self, name: &str, content: &[u8]) -> Result<(), RecipeError> {
        for import in imports(name, &String::from_utf8_lossy(content)) {
            if self.named.contains(&import) {
                continue;
            }
            if self.named.len() > limits::WORKER_IMPORTS {
                let text = format!("a worker may import at most {} files", limits::WORKER_IMPORTS);
                return Err(self.refused(&import, &text));
            }
            self.named.insert(import.clone());
            self.to_read.push_back(import);
        }
        Ok(())
    }

    fn read(&mut self, path: &str) -> Result<Option<Vec<u8>>, RecipeError> {
        let inside = path.strip_prefix(self.workspace.trim_end_matches('/'));
        if !inside.is_some_and(|rest| rest.starts_with('/')) {
            return Err(self.refused(path, "is imported, and lies outside the workspace"));
        }
        let left = limits::WORKER_BYTES.saturating_sub(self.bytes);
        let content = self.sources.read(path, left).map_err(|text| self.refused(path, &text))?;
        self.bytes += content.as_ref().map_or(0, Vec::len);
        Ok(content)
    }

    fn note_language(&mut self, path: &str) {
        self.typescript |= has_extension(path, "ts") || has_extension(path, "mts");
    }

    fn refused(&self, path: &str, text: &str) -> RecipeError {
        let short = path.strip_prefix(self.workspace).and_then(|rest| rest.strip_prefix('/')).unwrap_or(path);
        RecipeError::WorkerSource { path: short.to_owned(), text: text.to_owned() }
    }

    fn into_script(mut self, main: &str) -> Script {
        let base = common_directory(self.found.keys()).len();
        let module = |name: &str, (kind, content)| Module { name: name[base..].to_owned(), kind, content };
        let first = self.found.remove(main).map(|found| module(main, found));
        let others = self.found.into_iter().map(|(name, found)| module(&name, found));
        Script { modules: first.into_iter().chain(others).collect(), typescript: self.typescript }
    }
}

/// The files an imported name may mean, in order.
fn candidates(name: &str) -> Vec<String> {
    let mut candidates = vec![name.to_owned()];
    if let Some(stem) = name.strip_suffix(".js") {
        candidates.push(format!("{stem}.ts"));
    } else if let Some(stem) = name.strip_suffix(".mjs") {
        candidates.push(format!("{stem}.mts"));
    }
    candidates.extend(["ts", "js", "mjs", "mts"].map(|extension| format!("{name}.{extension}")));
    candidates
}

/// What the module `name` imports by relative paths, as absolute names.
fn imports<'t>(name: &str, text: &'t str) -> impl Iterator<Item = String> + use<'t> {
    let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory).to_owned();
    let words = ["from", "import", "require"].into_iter();
    let words = words.flat_map(|keyword| text.match_indices(keyword));
    words.filter_map(move |(at, keyword)| {
        let after = at + keyword.len();
        let reach = text.floor_char_boundary(after + limits::IMPORT_REACH);
        let after = &text[after..reach];
        let specifier = if stands_alone(text, at) { specifier(keyword, after) } else { None };
        specifier.map(|specifier| normal(&format!("{directory}/{specifier}")))
    })
}

/// Whether the word at this place is not the end of a longer one or a property.
fn stands_alone(text: &str, at: usize) -> bool {
    let before = text[..at].chars().next_back();
    !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | '.'))
}

/// The relative specifier that follows a keyword.
fn specifier<'t>(keyword: &str, after: &'t str) -> Option<&'t str> {
    let mut rest = skip_blanks(after);
    match (rest.strip_prefix('('), keyword) {
        (Some(inside), "import" | "require") => rest = skip_blanks(inside),
        (None, "from" | "import") => {}
        _ => return None,
    }
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\'' | '`'))?;
    let (specifier, _) = rest[1..].split_once(quote)?;
    let plain = !specifier.contains(['\\', '\n', '\0']) && !specifier.contains("${");
    (plain && (specifier.starts_with("./") || specifier.starts_with("../"))).then_some(specifier)
}

/// Skips white space and comments between tokens.
fn skip_blanks(text: &str) -> &str {
    let mut rest = text.trim_start();
    loop {
        rest = if let Some(comment) = rest.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, after)| after)
        } else if let Some(comment) = rest.strip_prefix("//") {
            comment.split_once('\n').map_or("", |(_, after)| after)
        } else {
            return rest;
        }
        .trim_start();
    }
}

/// The older syntax has no exports and adds a listener. `.mjs` and TypeScript are always modules.
fn is_service_worker(path: &str, content: &[u8]) -> bool {
    let text = String::from_utf8_lossy(content);
    let exports = text.match_indices("export").any(|(at, _)| {
        let before = text[..at].trim_end_matches([' ', '\t']).chars().next_back();
        let starts_statement = before.is_none_or(|c| matches!(c, '\n' | '\r' | ';' | '}' | '/' | '{'));
        starts_statement && text[at + "export".len()..].starts_with([' ', '\t', '\n', '\r', '{', '*', '/'])
    });
    has_extension(path, "js") && !exports && text.contains("addEventListener")
}

/// Without `.` and `..`, beginning with a slash.
fn normal(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The deepest directory above all these paths, with a slash at its end.
fn common_directory<'p>(paths: impl Iterator<Item = &'p String>) -> String {
    let directories = paths.map(|path| &path[..path.len() - base_name(path).len()]);
    let common = directories.reduce(|one, other| {
        let same = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
        // A byte comparison may end within a name, or a character; the last slash before it is a boundary.
        let slash = one.as_bytes()[..same].iter().rposition(|byte| *byte == b'/');
        &one[..slash.map_or(0, |at| at + 1)]
    });
    common.unwrap_or("/").to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A workspace at `/w` with these files.
    struct Files(&'static [(&'static str, &'static str)]);

    impl Sources for Files {
        fn read(&self, path: &str, max: usize) -> Result<Option<Vec<u8>>, String> {
            let found = self.0.iter().find(|(name, _)| path.strip_prefix("/w/") == Some(*name));
            match found {
                Some((_, content)) if content.len() > max => Err("too large".to_owned()),
                found => Ok(found.map(|(_, content)| content.as_bytes().to_vec())),
            }
        }
    }

    fn check(files: &'static [(&'static str, &'static str)], expected: &[(&str, ModuleKind)]) {
        let script = Script::collect(&format!("/w/{}", files[0].0), "/w", &Files(files)).unwrap();
        let found: Vec<_> = script.modules.iter().map(|module| (module.name.as_str(), module.kind)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn imports_are_followed_and_named_as_they_are_imported() {
        use ModuleKind::{CommonJs, Data, EsModule, Json, Text, Wasm};
        check(&[("a/worker.js", "export default {}")], &[("worker.js", EsModule)]);
        check(
            &[
                (
                    "p/src/worker.js",
                    "import a from './a.js'; export { b } from \"../lib/b.js\"; import('./c.mjs')",
                ),
                ("p/src/a.js", "import d from './data/d.json'\nimport './worker.js'"),
                ("p/lib/b.js", "import{c}from'../src/c.mjs';import '../lib/e.cjs'"),
                ("p/src/c.mjs", "import t from './t.txt';import w from './w.wasm';import x from './x.bin'"),
                ("p/src/data/d.json", "{\"x\": \"import './never.js'\"}"),
                ("p/src/data/never.js", ""),
                ("p/lib/e.cjs", "const f = require( './f.cjs' )"),
                ("p/lib/f.cjs", ""),
                ("p/src/t.txt", "t"),
                ("p/src/w.wasm", "w"),
                ("p/src/x.bin", "x"),
            ],
            &[
                ("src/worker.js", EsModule),
                ("lib/b.js", EsModule),
                ("lib/e.cjs", CommonJs),
                ("lib/f.cjs", CommonJs),
                ("src/a.js", EsModule),
                ("src/c.mjs", EsModule),
                ("src/data/d.json", Json),
                ("src/t.txt", Text),
                ("src/w.wasm", Wasm),
                ("src/x.bin", Data),
            ],
        );
    }

    #[test]
    fn extensions_may_be_left_out_and_typescript_may_be_called_js() {
        use ModuleKind::EsModule;
        check(
            &[
                (
                    "w.ts",
                    "import a from './a'; import b from './b.js'; import c from './c.mjs'; import g from './gone'",
                ),
                ("a.ts", ""),
                ("b.ts", ""),
                ("c.mts", ""),
            ],
            &[("w.ts", EsModule), ("a", EsModule), ("b.js", EsModule), ("c.mjs", EsModule)],
        );
        let typescript = |files| Script::collect("/w/w.js", "/w", &Files(files)).unwrap().typescript;
        assert!(typescript(&[("w.js", "import './a.ts'; export {}"), ("a.ts", "")]));
        assert!(!typescript(&[("w.js", "import './a.js'; export {}"), ("a.js", "")]));
    }

    #[test]
    fn only_relative_specifiers_after_a_keyword_are_imports() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(imports("/w/d/m.js", text).collect::<Vec<_>>(), expected, "{text:?}");
        };
        check("import x from './a.js'", &["/w/d/a.js"]);
        check("import x, { y } from\n  \"../b.js\"", &["/w/b.js"]);
        check("await import(/* lazily */ `./c.js`)", &["/w/d/c.js"]);
        check("import // why\n './d.js'", &["/w/d/d.js"]);
        check("import hono from 'hono'; import fs from 'node:fs'; import '/abs.js'", &[]);
        check("Array.from('./a.js'); transform './b.js'; $import('./c.js')", &[]);
        check("import(`./${name}.js`); import('./a' + b)", &["/w/d/a"]);
        check("from './unclosed", &[]);
        check("require './a.js'; from('./b.js')", &[]);
        check("import", &[]);
        check("é import 'é' from './ü/日.js'", &["/w/d/ü/日.js"]);
        check(&format!("import{}'./far.js'", " ".repeat(limits::IMPORT_REACH)), &[]);
    }

    /// A main module, and nothing else; counts what is looked for.
    struct Alone(String, AtomicUsize);

    impl Sources for Alone {
        fn read(&self, path: &str, _max: usize) -> Result<Option<Vec<u8>>, String> {
            self.1.fetch_add(1, Ordering::Relaxed);
            Ok((path == "/w/w.mjs").then(|| self.0.clone().into_bytes()))
        }
    }

    #[test]
    fn what_is_imported_many_times_is_looked_for_once() {
        let alone = Alone("import'./a.txt'\n".repeat(100_000), AtomicUsize::new(0));
        let script = Script::collect("/w/w.mjs", "/w", &alone).unwrap();
        // The main module, and the candidates of one name.
        let looked_for = alone.1.into_inner();
        assert_eq!((script.modules.len(), looked_for), (1, 1 + candidates("/w/a.txt").len()));
    }

    #[test]
    fn imports_of_many_files_are_refused() {
        let importing = |many: usize| {
            let text = (0..many).map(|number| format!("import './{number}.js'\n")).collect();
            Script::collect("/w/w.mjs", "/w", &Alone(text, AtomicUsize::new(0))).map(drop)
        };
        importing(limits::WORKER_IMPORTS).unwrap();
        let error = importing(limits::WORKER_IMPORTS + 1).unwrap_err();
        assert_eq!(error.to_string(), "4000.js: a worker may import at most 4000 files");
    }

    #[test]
    fn the_older_syntax_is_told_by_its_listener_and_the_lack_of_exports() {
        let check = |path: &str, text: &str, expected: bool| {
            assert_eq!(is_service_worker(path, text.as_bytes()), expected, "{text:?}");
        };
        check("w.js", "addEventListener('fetch', e => e.respondWith(new Response('exported')))", true);
        check("w.js", "// no export here\naddEventListener('fetch', f)", true);
        check("w.js", "export default { fetch() { addEventListener('x', f) } }", false);
        check("w.js", "addEventListener('x', f);export{f as default}", false);
        check("w.js", "const f = 1; export * from './x.js'; addEventListener('x', f)", false);
        check("w.mjs", "addEventListener('fetch', f)", false);
        check("w.js", "console.log(1)", false);
    }

    #[test]
    fn what_cannot_be_a_worker_is_refused() {
        let check = |path: &str, files: &'static [(&'static str, &'static str)], expected: &str| {
            let error = Script::collect(path, "/w", &Files(files)).unwrap_err();
            assert_eq!(error.to_string(), expected);
        };
        let kinds = "a worker is a .capnp configuration or a .js, .mjs, .ts or .mts source";
        check("/w/a.txt", &[("a.txt", "")], &format!("a.txt: {kinds}"));
        check("/w/p/a", &[("p/a", "")], &format!("p/a: {kinds}"));
        check("/w/a.tsx", &[("a.tsx", "")], &format!("a.tsx: {kinds}"));
        check("/w/gone.js", &[], "gone.js: no such file");
        check(
            "/w/p/a.js",
            &[("p/a.js", "import x from '../../etc/passwd.js'")],
            "/etc/passwd.js: is imported, and lies outside the workspace",
        );
    }
}
