//! What a person does in terminal windows: type, paste, resize, interrupt, close and open again.

use mhnos_testing::Key;
use serde_json::json;

use crate::desk::Desk;
use crate::options;

/// The same prompt everywhere.
const BASHRC: (&str, &[u8]) = (".bashrc", b"PS1='$ '\n");

/// A program that takes the whole screen, as an editor does, and shows the terminal's size and the keys it gets.
const FULL_SCREEN: &[u8] = br#"
import curses
def main(screen):
    curses.start_color()
    curses.use_default_colors()
    curses.init_pair(1, curses.COLOR_GREEN, -1)
    while True:
        rows, cols = screen.getmaxyx()
        screen.erase()
        screen.border()
        screen.addstr(1, 2, f"full screen {cols}x{rows}", curses.color_pair(1) | curses.A_BOLD)
        screen.addstr(3, 2, "caf\u00e9 \u4e2d\u6587 \U0001f980")
        screen.refresh()
        key = screen.getch()
        if key == ord("q"):
            return
curses.wrapper(main)
"#;

#[tokio::test]
async fn points_22_24_typing_resizing_interrupting_and_whole_screens_in_a_shell() {
    let mut desk = Desk::open_in(options(), &[("full.py", FULL_SCREEN), BASHRC]).await;
    desk.start("rshell").await;
    desk.shows(0, "$").await;
    desk.fitted(0).await;
    let size =
        desk.tab.evaluate("({cols: os.windows[0].terminal.cols, rows: os.windows[0].terminal.rows})").await;
    assert_ne!(size["cols"], 80, "the real size is another than the first one");

    desk.tab.type_keys("echo mistake").await;
    for _ in 0.."mistake".len() {
        desk.tab.press(Key::Backspace).await;
    }
    desk.tab.type_keys("$((6 * 7)); stty size").await;
    desk.tab.press(Key::Enter).await;
    desk.shows(0, &format!("42\n{} {}", size["rows"], size["cols"])).await;

    desk.tab.insert_text("echo '中文 grüße 🦀'").await;
    desk.tab.press(Key::Enter).await;
    desk.shows(0, "\n中文 grüße 🦀\n").await;

    desk.done("runtime status").await;
    desk.done("runtime ping").await;
    desk.tab.type_keys("node --version; python3 --version").await;
    desk.tab.press(Key::Enter).await;
    desk.shows(0, "\nPython 3").await;
    desk.picture("shell").await;

    // By a program of its own: between fork and exec a child of bash has bash's handler, and what comes then is lost.
    desk.tab.type_keys("sh -c \"echo slee''ping; exec sleep 1000\"").await;
    desk.tab.press(Key::Enter).await;
    desk.shows(0, "\nsleeping").await;
    desk.tab.press(Key::Ctrl('c')).await;
    desk.shows(0, "^C").await;

    desk.tab.type_keys("python3 full.py").await;
    desk.tab.press(Key::Enter).await;
    desk.shows(0, &format!("full screen {}x{}", size["cols"], size["rows"])).await;
    desk.shows(0, "café 中文 🦀").await;
    desk.picture("full-screen").await;
    desk.tab.evaluate("os.windows[0].terminal.resize(61, 17)").await;
    desk.shows(0, "full screen 61x17").await;
    desk.tab.type_keys("q").await;
    desk.until("!os.windows[0].text.includes('full screen')").await;
    desk.shows(0, "^C").await;
    desk.tab.type_keys("exit 5").await;
    desk.tab.press(Key::Enter).await;
    desk.shows(0, "[Process exited with code 5, signal null]").await;
}

#[tokio::test]
async fn point_24_a_paste_of_60_kb_arrives_whole() {
    let mut desk = Desk::open().await;
    desk.start("rshell").await;
    desk.fitted(0).await;
    desk.tab.type_keys("echo re''ady; cat > pasted.txt; echo do''ne").await;
    desk.tab.press(Key::Enter).await;
    desk.shows(0, "\nready").await;
    let lines = (0..1000)
        .map(|line| format!("{line:04} pasted line with 中文 and 🦀, more than sixty bytes of it\n"));
    let text: String = lines.collect();
    assert!(text.len() > 60_000);
    desk.tab.evaluate(&format!("os.paste(0, {})", json!(text))).await;
    desk.tab.press(Key::Ctrl('d')).await;
    desk.shows(0, "\ndone").await;
    assert_eq!(std::fs::read_to_string(desk.server.workspace().join("pasted.txt")).expect("written"), text);
    let writes = desk.frames().await;
    let longest = writes.iter().filter_map(|frame| frame["send"]["data"].as_str()).map(str::len).max();
    assert!(longest.is_some_and(|longest| longest > 60_000), "the page sends a paste as one write");
}

#[tokio::test]
async fn point_24_a_program_on_pipes_gets_lines_and_interrupts_from_keys() {
    let mut desk = Desk::open().await;
    let script = b"import signal\n\
        def stop(*_):\n    raise SystemExit('interrupted')\n\
        signal.signal(signal.SIGINT, stop)\n\
        print('name?')\nprint('hello', input())\nsignal.pause()\n";
    desk.save("/ask.py", script).await;
    desk.done("runtime push").await;
    let pid = desk.start("runtime python ask.py").await;
    // Dropped by the page, which has not attached; the replay has it again.
    desk.until(
        "os.bridge.frames.some(({receive}) => receive?.type === 'stdout' && receive.data.endsWith('\\n'))",
    )
    .await;
    desk.done(&format!("window {pid}")).await;
    desk.fitted(0).await;
    desk.shows(0, "name?").await;
    desk.tab.type_keys("you").await;
    desk.tab.press(Key::Enter).await;
    desk.shows(0, "hello you").await;
    desk.tab.press(Key::Ctrl('c')).await;
    desk.shows(0, "interrupted").await;
    desk.shows(0, "[Process exited with code 1, signal null]").await;
    desk.is_golden("keys-on-pipes").await;
}

#[tokio::test]
async fn points_17_20_a_window_that_was_closed_shows_everything_when_opened_again() {
    let mut desk = Desk::open_in(options(), &[BASHRC]).await;
    let pid = desk.start("rshell").await;
    desk.shows(0, "$").await;
    desk.fitted(0).await;
    desk.tab.type_keys("echo fir''st").await;
    desk.tab.press(Key::Enter).await;
    desk.shows(0, "\nfirst").await;
    desk.tab.evaluate("os.windows[0].close()").await;
    desk.done(&format!("window {pid}")).await;
    desk.shows(1, "\nfirst").await;
    desk.fitted(1).await;
    desk.tab.type_keys("echo seco''nd").await;
    desk.tab.press(Key::Enter).await;
    desk.shows(1, "\nsecond").await;
    // A second window beside it, while this connection is attached already.
    desk.done(&format!("window {pid}")).await;
    desk.shows(2, "\nsecond").await;
    desk.picture("windows").await;
    desk.tab.evaluate("os.windows[1].close()").await;
    desk.done(&format!("runtime kill {pid}")).await;
    assert!(desk.done("runtime list").await.is_empty());
}

#[tokio::test]
async fn points_19_22_ten_megabytes_arrive_whole_and_in_whole_lines() {
    let mut desk = Desk::open().await;
    let script = b"const line = 'x'.repeat(98) + '\\n';\n\
        let text = '';\nfor (let at = 0; at < 101011; at += 1) text += String(at).padStart(7, '0') + line.slice(7);\n\
        process.stdin.once('data', () => process.stdout.write(text + 'the end\\n', () => process.exit()));\n";
    desk.save("/flood.js", script).await;
    desk.done("runtime push").await;
    let pid = desk.start("runtime node flood.js").await;
    desk.done(&format!("window {pid}")).await;
    desk.fitted(0).await;
    desk.tab.press(Key::Enter).await;
    desk.shows(0, "the end\n\n[Process exited with code 0").await;
    let seen = desk.tab.evaluate(FLOOD_SEEN).await;
    assert_eq!((&seen["lines"], &seen["wrong"]), (&json!(101_012), &json!(0)), "{seen}");
    let count = |name: &str| seen[name].as_u64().expect("a count");
    // Only where the log of 4 MiB wraps, and where the program itself pauses within a line.
    assert!(count("cut") * 10 <= count("frames"), "lines are kept whole: {seen}");
}

/// What came after the attach: how many lines, how many of them wrong, and how many frames that end within a line.
const FLOOD_SEEN: &str = "(() => {
    const { frames } = os.bridge;
    const attach = frames.findLastIndex(({ send }) => send?.type === 'attach');
    const output = frames.slice(attach).filter(({ receive }) => receive?.type === 'stdout').map(({ receive }) => receive.data);
    const lines = output.join('').split('\\n').slice(0, -1);
    const isRight = (line, at) => line.length === 98 && Number(line.slice(0, 7)) === at;
    const wrong = lines.slice(0, -1).filter((line, at) => !isRight(line, at)).length;
    return { lines: lines.length, wrong, frames: output.length, cut: output.filter((data) => !data.endsWith('\\n')).length };
})()";
