# What programs do for a living; each step ends the script if it fails. PORT is where a server may listen. node.sh goes where its name is.
set -eu
export HOME="$PWD" TMPDIR=/tmp
echo step files
mkdir -p a/b; echo x > a/b/f; mv a/b/f a/g; ln -s g a/h; ln a/g a/i; chmod 600 a/g; cat a/h > /dev/null; rm -r a
echo step redirection
echo x > /dev/null; echo x > /dev/stderr; : < /dev/stdin
@node.sh
echo step python
python3 - <<'END'
import asyncio, multiprocessing as m, sqlite3, subprocess, tempfile, socket
async def f(): return await asyncio.sleep(0, 3)
assert asyncio.run(f()) == 3
def g(x): return x * x
with m.get_context("fork").Pool(2) as p: assert p.map(g, [2, 3]) == [4, 9]
from multiprocessing import shared_memory
s = shared_memory.SharedMemory(create=True, size=64); s.close(); s.unlink()
d = sqlite3.connect("t.db"); d.execute("pragma journal_mode=wal"); d.execute("create table t(a)"); d.commit(); d.close()
subprocess.run(["true"], check=True); tempfile.TemporaryFile().close()
a, b = socket.socketpair(); a.send(b"x"); assert b.recv(1) == b"x"
END
cat > pools.py <<'END'
import multiprocessing as m
def g(x): return x * x
if __name__ == "__main__":
    for method in METHODS:
        with m.get_context(method).Pool(2) as p: assert p.map(g, [2, 3]) == [4, 9]
END
python3 pools.py
echo step pip
python3 -m venv v; v/bin/python -c 'import sys; assert sys.prefix != sys.base_prefix'
python3 - <<'END'
import zipfile
info = "demo-1.0.dist-info/"
files = {
    "demo.py": "def answer(): return 42\n",
    info + "METADATA": "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n",
    info + "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    info + "entry_points.txt": "[console_scripts]\ndemo = demo:answer\n",
}
files[info + "RECORD"] = "".join(name + ",,\n" for name in [*files, info + "RECORD"])
with zipfile.ZipFile("demo-1.0-py3-none-any.whl", "w") as wheel:
    for name, text in files.items(): wheel.writestr(name, text)
END
v/bin/pip install -q --no-index --disable-pip-version-check ./demo-1.0-py3-none-any.whl
v/bin/python -c 'import demo; assert demo.answer() == 42'
v/bin/demo || test $? = 42
echo step git
git init -q r; cd r; git -c user.name=a -c user.email=a@example.org commit -q --allow-empty -m x; cd ..; git clone -q r c
echo step gcc
printf 'int main(){return 0;}' > t.c; gcc -o t t.c; ./t
echo all done
