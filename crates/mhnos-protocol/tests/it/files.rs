//! Pushed and pulled files: byte-exact, or an error of the one entry that is wrong.

use mhnos_protocol::{
    BadEntry, Content, ErrorCode, ErrorReply, FileEntry, PullWriter, Reply, Request, ServerMessage,
};
use mhnos_protocol::{limits, parse_request, parse_server_message};
use proptest::prelude::*;

type Entries = Vec<Result<FileEntry, BadEntry>>;

#[track_caller]
fn push(files: &str) -> Entries {
    let input = format!(r#"{{"type":"fsync","id":1,"operation":"push","files":{files}}}"#);
    let Request::Push { files } = parse_request(&input).request.expect(files) else { panic!("{files}") };
    files
}

#[track_caller]
fn content(given: &str) -> Result<Vec<u8>, String> {
    let entry = push(&format!(r#"[{{"path":"/a","kind":"file","content":{given},"mtime":1}}]"#)).remove(0);
    match entry {
        Ok(FileEntry { content: Content::File(bytes), .. }) => Ok(bytes),
        Ok(entry) => panic!("{entry:?}"),
        Err(bad) => {
            assert_eq!(bad.path, "/a");
            Err(bad.malformed.text)
        }
    }
}

#[test]
fn content_is_bytes_text_or_base64() {
    assert_eq!(content("[]"), Ok(vec![]));
    assert_eq!(content("[ ]"), Ok(vec![]));
    assert_eq!(content("[0]"), Ok(vec![0]));
    assert_eq!(content("[104,105,255,0,10,99,100]"), Ok(vec![104, 105, 255, 0, 10, 99, 100]));
    assert_eq!(content(" [ 1 , 2,\n3\t,4 ,5 ] "), Ok(vec![1, 2, 3, 4, 5]));
    assert_eq!(content("[1e1,2.0,25.5e1]"), Ok(vec![10, 2, 255]));
    assert_eq!(content(r#""h\u00e9""#), Ok("hé".into()));
    assert_eq!(content(r#""/wA=","encoding":"base64""#), Ok(vec![0xff, 0]));
    assert_eq!(content(r#""""#), Ok(vec![]));
}

#[test]
fn wrong_content_is_an_error_and_never_an_empty_file() {
    let cases = [
        ("[300]", "content[0] must be a whole number from 0 to 255, got 300"),
        ("[1,2,256]", "content[2] must be"),
        ("[1,-1,2]", "content[1] must be a whole number from 0 to 255, got -1"),
        ("[0,1.5]", "content[1] must be a whole number from 0 to 255, got 1.5"),
        (r#"[0,1,2,3,"66"]"#, r#"content[4] must be a whole number from 0 to 255, got "66""#),
        ("[0,null,300]", "content[1] must be a whole number from 0 to 255, got null"),
        ("[[1]]", "content[0] must be"),
        ("[1000,1]", "content[0] must be"),
        ("[999,1,1,1,1]", "content[0] must be"),
        ("[1,999,1,1,1]", "content[1] must be"),
        (r#"{"0":65}"#, "content must be an array of numbers"),
        (r#"{"type":"Buffer","data":[65]}"#, "content must be an array of numbers"),
        ("null", "content must be an array of numbers"),
        ("5", "content must be an array of numbers"),
        ("true", "content must be an array of numbers"),
        (r#""%%","encoding":"base64""#, "content must be base64"),
        (r#""x","encoding":"hex""#, "encoding must be"),
    ];
    for (given, part) in cases {
        let error = content(given).expect_err(given);
        assert!(error.contains(part), "{given}: {error}");
    }
}

#[test]
fn one_bad_entry_does_not_lose_the_others() {
    let entries = push(
        r#"[{"path":"a","kind":"file","content":[1]}, null, 5, "x", [], {}, {"kind":"file"}, {"path":"","kind":"file"},
            {"path":7,"kind":"file"}, {"path":"n\u0000l","kind":"file"}, {"path":"l","kind":"symlink"}, {"path":"k"},
            {"path":"c","kind":"file"}, {"path":"t","kind":"directory","mtime":"now"},
            {"path":"t","kind":"directory","mtime":1e17}, {"path":"d","kind":"directory","content":null,"mtime":-1.5}]"#,
    );
    let shown: Vec<String> = entries
        .iter()
        .map(|entry| match entry {
            Ok(entry) => format!("{} {:?}", entry.path, entry.mtime_ms),
            Err(bad) => format!("{}: {}", bad.path, bad.malformed),
        })
        .collect();
    let expected = [
        "a None",
        "files[1]: files[1] must be an object {path, kind, content, mtime}, got null",
        "files[2]: files[2] must be an object {path, kind, content, mtime}, got 5",
        "files[3]: files[3] must be an object {path, kind, content, mtime}, got \"x\"",
        "files[4]: files[4] must be an object {path, kind, content, mtime}, got []",
        "files[5]: path is missing: where the file goes",
        "files[6]: path is missing: where the file goes",
        "files[7]: path must be a path that is not empty, got \"\"",
        "files[8]: path must be a string, got 7",
        "files[9]: path must be a string without NUL bytes, got \"n\\u0000l\"",
        "l: kind must be \"file\" or \"directory\", got \"symlink\"",
        "k: kind is missing: \"file\" or \"directory\"",
        "c: content is missing: an array of numbers from 0 to 255, a string, or base64 with \"encoding\":\"base64\"",
        "t: mtime must be a time in milliseconds since 1970, got \"now\"",
        "t: mtime must be a time in milliseconds since 1970, got 1e17",
        "d Some(-2)",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn files_must_be_an_array_of_bounded_length() {
    for files in ["{}", "null", "5", "\"a\"", "true"] {
        let input = format!(r#"{{"type":"fsync","operation":"push","files":{files}}}"#);
        let text = parse_request(&input).request.unwrap_err().text;
        assert!(text.contains("files must be an array of {path, kind, content, mtime}"), "{text}");
    }
    let text = parse_request(r#"{"type":"fsync","operation":"push"}"#).request.unwrap_err().text;
    assert!(text.contains("files is missing"), "{text}");
    let many = vec!["null"; limits::MAX_PUSH_ENTRIES + 1].join(",");
    let text = parse_request(&format!(r#"{{"type":"fsync","operation":"push","files":[{many}]}}"#)).request;
    assert!(text.unwrap_err().text.contains("files must be at most 10000 entries long, got 10001"));
    // A message of another type is not held to it.
    assert_eq!(parse_request(r#"{"type":"ping","files":5}"#).request, Ok(Request::Ping));
}

#[test]
fn the_order_of_keys_does_not_matter() {
    let input = r#"{"files":[{"encoding":"base64","content":"/w==","mtime":5.9,"kind":"file","path":"p"}],
                   "operation":"push","id":9,"type":"fsync"}"#;
    let Request::Push { files } = parse_request(input).request.unwrap() else { panic!("a push") };
    let entry = FileEntry { path: "p".into(), content: Content::File(vec![0xff]), mtime_ms: Some(5) };
    assert_eq!(files, [Ok(entry)]);
}

proptest! {
    #[test]
    fn arrays_of_numbers_are_read_as_serde_reads_them(bytes in any::<Vec<u8>>(), spaces in any::<bool>()) {
        let mut text = serde_json::to_string(&bytes).unwrap();
        if spaces {
            text = text.replace(",2", " ,\t2").replace(",1", ",\n1");
        }
        prop_assert_eq!(content(&text), Ok(bytes));
    }

    #[test]
    fn long_arrays_are_read_as_serde_reads_them_whatever_stands_in_them_and_where(
        length in 0..12_000_usize, seed: u64, at in any::<prop::sample::Index>(),
        odd in prop::sample::select(vec!["7", "256", "999", "1000", "-1", "07", "1.5", "2.0", "1e2", "null", "\"1\"", " 5", "5 ", "[5]", ""]),
    ) {
        // Numbers of one, two and three digits in runs and mixed: the places where they begin shift everywhere.
        let number = |index: usize| (seed.rotate_left(index as u32 % 61).wrapping_mul(index as u64 | 1) >> (seed % 7)) as u8;
        let mut items: Vec<String> = (0..length).map(|index| number(index).to_string()).collect();
        if !items.is_empty() {
            let at = at.index(items.len());
            odd.clone_into(&mut items[at]);
        }
        let text = format!("[{}]", items.join(","));
        let theirs: Option<Vec<f64>> = serde_json::from_str(&text).ok();
        let theirs = theirs.filter(|numbers| numbers.iter().all(|n| (0.0..=255.0).contains(n) && n.fract() == 0.0));
        let theirs = theirs.map(|numbers| numbers.iter().map(|n| *n as u8).collect::<Vec<u8>>());
        let input = format!(r#"{{"type":"fsync","operation":"push","files":[{{"path":"a","kind":"file","content":{text}}}]}}"#);
        let ours = parse_request(&input).request.ok().and_then(|request| match request {
            Request::Push { mut files } => files.remove(0).ok(),
            _ => None,
        });
        let ours = ours.map(|entry| match entry.content { Content::File(bytes) => bytes, Content::Directory => panic!() });
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn no_array_is_read_otherwise_than_serde_reads_it(text in "\\[([0-9]{1,4}|[0-9a ,.\"-]){0,12}\\]") {
        let input = format!(r#"{{"type":"fsync","operation":"push","files":[{{"path":"a","kind":"file","content":{text}}}]}}"#);
        let ours = parse_request(&input).request.ok().and_then(|request| match request {
            Request::Push { mut files } => files.remove(0).ok(),
            _ => None,
        });
        let theirs: Option<Vec<f64>> = serde_json::from_str(&text).ok();
        let theirs = theirs.filter(|numbers| numbers.iter().all(|n| (0.0..=255.0).contains(n) && n.fract() == 0.0));
        let theirs = theirs.map(|numbers| numbers.iter().map(|n| *n as u8).collect::<Vec<u8>>());
        let ours = ours.map(|entry| match entry.content { Content::File(bytes) => bytes, Content::Directory => panic!() });
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn a_pull_is_read_back_byte_for_byte(files in proptest::collection::vec((".{1,12}", proptest::option::of(any::<Vec<u8>>()), -9_999_i64..9_999), 0..4), cut in any::<prop::sample::Index>()) {
        let id = serde_json::value::to_raw_value("req-1").unwrap();
        let mut writer = PullWriter::new();
        let mut text = Vec::new();
        for (path, bytes, mtime) in &files {
            match bytes {
                None => writer.directory(path),
                Some(bytes) => {
                    writer.file(path, *mtime);
                    let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
                    writer.bytes(head);
                    text.extend(writer.take());
                    writer.bytes(tail);
                }
            }
        }
        text.extend(writer.finish("fsyncResult", Some(&id)));
        let text = String::from_utf8(text).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
        if files.iter().any(|(path, ..)| path.contains('\0')) {
            return Ok(());
        }
        let ServerMessage::Pulled { id: Some(got), files: read } = parse_server_message(&text).unwrap() else { panic!("{text}") };
        prop_assert_eq!(got.get(), id.get());
        let expected: Vec<FileEntry> = files.into_iter().map(|(path, bytes, mtime)| FileEntry {
            path,
            mtime_ms: bytes.is_some().then_some(mtime),
            content: bytes.map_or(Content::Directory, Content::File),
        }).collect();
        prop_assert_eq!(read, expected);
    }
}

#[test]
fn a_pull_has_the_shape_that_browsers_read() {
    let mut writer = PullWriter::new();
    writer.file("a \"b\".txt", 1_700_000_000_000);
    writer.bytes(&[0, 9, 10, 99, 100, 255]);
    writer.directory("empty");
    let expected = r#"{"operation":"pull","files":[{"path":"a \"b\".txt","kind":"file","content":[0,9,10,99,100,255],"mtime":1700000000000},{"path":"empty","kind":"directory"}],"status":"success","type":"fsyncResult"}"#;
    assert_eq!(String::from_utf8(writer.finish("fsyncResult", None)).unwrap(), expected);
}

#[test]
fn a_pull_that_fails_half_way_ends_as_an_error() {
    let id = serde_json::value::to_raw_value(&7).unwrap();
    let mut writer = PullWriter::new();
    writer.file("a", -5);
    writer.bytes(&[1]);
    let mut text = writer.take();
    text.extend(writer.fail(Some(&id), &ErrorReply::new(ErrorCode::FileFailed, "\"a\" cannot be read")));
    let text = String::from_utf8(text).unwrap();
    let ServerMessage::Reply { id: Some(got), reply: Reply::Error(error) } =
        parse_server_message(&text).unwrap()
    else {
        panic!("{text}")
    };
    assert_eq!(
        (got.get(), error.code, error.error.as_str()),
        ("7", ErrorCode::FileFailed, "\"a\" cannot be read")
    );
}
