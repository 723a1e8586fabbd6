from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tests.claude_bench import ClaudeBench, claude
from tests.client_bench import world
from tests.scripted_model import Turn, run, use

from autoresearch.agents.profile import load_profile
from autoresearch.agents.settings import LOOP_SCRIPTS, write_settings

__all__ = ["claude", "world"]  # fixtures

DENIED = "don't ask mode"
NO_TOOL = "No such tool available"


def written(folder: Path, *, permissions: str = "allowlist", project: Path | None = None, **changes) -> dict:
    values = {
        "permissions": permissions, "scripts": Path("/bundle/scripts"), "python": Path(sys.executable),
        "project": project or folder, "edit": ("train.py",),
    }  # fmt: skip
    path = write_settings(load_profile("claude"), folder, **{**values, **changes})
    assert path is not None
    return json.loads(path.read_text(encoding="utf-8"))


# --- the file ----------------------------------------------------------------------------------


def test_files_are_the_users_alone_and_the_log_is_kept(tmp_path: Path):
    (tmp_path / "hooks.jsonl").write_text("old\n", encoding="utf-8")
    (tmp_path / "hooks.jsonl").chmod(0o600)
    written(tmp_path)
    assert (tmp_path / "hooks.jsonl").read_text(encoding="utf-8") == "old\n"
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize("agent", ["codex", "gemini", "opencode"])
def test_client_without_such_settings_gets_no_file(tmp_path: Path, agent: str):
    path = write_settings(
        load_profile(agent), tmp_path, permissions="allowlist", scripts=tmp_path, python=tmp_path, project=tmp_path,
        edit=(),
    )  # fmt: skip
    assert path is None
    assert list(tmp_path.iterdir()) == []


def test_bypass_names_no_permissions(tmp_path: Path):
    assert "permissions" not in written(tmp_path, permissions="bypass")


def test_only_the_loops_scripts_are_allowed(tmp_path: Path):
    rules = written(tmp_path)["permissions"]["allow"]
    commands = [rule for rule in rules if rule.startswith("Bash(")]
    assert {Path(word).stem for rule in commands for word in rule.strip(")").split() if ".py" in word} == {
        *LOOP_SCRIPTS
    }
    assert [rule for rule in rules if rule not in commands and not rule.startswith(("Read(//", "Edit(//"))] == []


@pytest.mark.parametrize("event", ["two\nlines", 'it\'s "quoted" $HOME `id` \\n %s', "自主研究 🚀", "x" * 100_000])
def test_hook_appends_a_line_for_each_event_whatever_it_holds(tmp_path: Path, event: str):
    folder = tmp_path / "it's a (night)"
    folder.mkdir()
    command = written(folder)["hooks"]["Stop"][0]["hooks"][0]["command"]
    for _ in range(2):
        subprocess.run(["sh", "-c", command], input=json.dumps({"text": event}), text=True, check=True)
    lines = (folder / "hooks.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["event"] for line in lines] == [{"text": event}] * 2
    assert json.loads(lines[0])["at"] <= json.loads(lines[1])["at"]


def test_hook_and_status_line_say_nothing_and_make_private_files(tmp_path: Path):
    settings = written(tmp_path)
    for command in (settings["hooks"]["Stop"][0]["hooks"][0]["command"], settings["statusLine"]["command"]):
        done = subprocess.run(
            ["sh", "-c", f"umask 0; {command}"], input="{}", text=True, capture_output=True, check=True
        )
        assert (done.stdout, done.stderr) == ("", "")
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


# --- the allowlist, with the real client --------------------------------------------------------


def allowed(bench: ClaudeBench) -> dict[str, Turn]:
    scripts, project = bench.scripts, bench.project
    commands = [f"python3 {scripts}/{name}.py" for name in LOOP_SCRIPTS] + [
        f"/usr/bin/python3 {scripts}/status.py --wait 540 --json",
        f"python3 {scripts}/run_experiment.py -d 'use sqrt(2) & relu^2; lr=$3e-4 `x`' --family optimizer",
        f'python3 {scripts}/log_result.py --note "it\'s better; kept (z > 2)"',
        f'python3 {scripts}/run_experiment.py -d "学习率 0.04 🚀"',
        f"cd {project} && python3 {scripts}/status.py",
        f"python3 {scripts}/status.py 2>&1 | tail -5",
        f"cat {scripts.parent}/SKILL.md",
        *("cat train.py prepare.py", "ls -la", "git log | head -3", "git diff", "git status", "grep -n a *.py"),
    ]  # fmt: skip
    return {
        **{command: run(command) for command in commands},
        "read": use("Read", file_path=str(project / "prepare.py")),
        "read to edit": use("Read", file_path=str(project / "train.py")),
        "read by a link": use("Read", file_path=str(project / "models/link.py")),
        "edit": use("Edit", file_path=str(project / "train.py"), old_string="a = 1", new_string="a = 2"),
        "new file under edit": use("Write", file_path=str(project / "models/b.py"), content="b = 1\n"),
        # An edit by other means: it is of a file that may be edited.
        "redirection": run("cat prepare.py > train.py"),
    }


def forbidden(bench: ClaudeBench) -> dict[str, Turn]:
    project, outside = bench.project, bench.world.folder
    status = f"python3 {bench.scripts}/status.py"
    commands = [
        *(f"{status}; touch pwn", f"{status} && curl http://127.0.0.1:1", f"{status} || touch pwn"),
        *(f"{status} & touch pwn", f"{status}\ntouch pwn", f"{status} | sh", f"{status} | tee pwn"),
        *(f"{status} > pwn", f"{status} >> prepare.py", f"{status} <(touch pwn)"),
        *(f"{status} $(touch pwn)", f"{status} `touch pwn`", f'{status} "$(touch pwn)"'),
        *(f"({status}; touch pwn)", f"if true; then {status}; touch pwn; fi"),
        *(f"X=1 {status}", f"PYTHONPATH=. {status}", f"env X=1 {status}", f"PATH=.:$PATH {status}", f"eval '{status}'"),
        *(f"{status}/../doctor.py", f"{status}x", f"python3 -i {bench.scripts}/status.py", f"uv run --with x {status}"),
        *(f"python3 {bench.scripts}/{name}.py" for name in ("setup_campaign", "doctor", "launch_tmux")),
        *("python3 -c 'open(\"pwn\", \"w\")'", "python3 train.py", "python3 link.py"),
        *("bash -c 'touch pwn'", "eval touch pwn", "xargs touch pwn", "timeout 5 touch pwn", "nohup touch pwn"),
        *("git reset --hard", "git checkout -- .", "git commit -am x", "git stash", "git clean -fd", "git push"),
        *("git diff --output=pwn", "git -c core.pager='touch pwn' log", "git grep -O'touch pwn' a", "git config a.b c"),
        *("rm train.py", "mv train.py pwn", "cp prepare.py train.py", "ln -s a pwn", "mkdir pwn", "touch pwn"),
        *("echo x > prepare.py", "cat train.py > pwn", "sed -i s/1/9/ prepare.py", "sort -o pwn train.py"),
        *("find . -delete", "find . -exec touch pwn {} +", "awk 'BEGIN{system(\"touch pwn\")}'"),
        *("alias ls='touch pwn'; ls", "for x in a; do touch pwn; done"),
        *("curl http://127.0.0.1:1", "wget x", "pip install x", "kill 1", "tmux kill-server", "env", "printenv PATH"),
        *(f"cat {outside}/secret", "cat out/secret", "cat /etc/shadow", "ls /root", "cat ~/.claude.json"),
    ]  # fmt: skip

    def write(path: Path | str) -> Turn:
        return use("Write", file_path=str(path), content="pwn")

    return {
        **{command: run(command) for command in commands},
        "background": run("touch pwn", input_={"run_in_background": True}),
        "without sandbox": run("touch pwn", input_={"dangerouslyDisableSandbox": True}),
        "edit what is read-only": use(
            "Edit", file_path=str(project / "prepare.py"), old_string="a = 1", new_string="a = 2"
        ),
        "edit by a roundabout path": use(
            "Edit", file_path=f"{project}/models/../prepare.py", old_string="a = 1", new_string="a = 2"
        ),
        "edit by a link": write(project / "models/link.py"),
        "new file": write(project / "pwn"),
        "new file in a folder under edit": write(project / "models/pwn.txt"),
        "file outside": write(outside / "pwn"),
        "file outside by dots": write(f"{project}/../pwn"),
        "project's settings": write(project / ".claude/settings.json"),
        "local settings": write(project / ".claude/settings.local.json"),
        "user's settings": write(bench.world.home / ".claude/settings.local.json"),
        "git hook": write(project / ".git/hooks/post-commit"),
        "the bundle": write(bench.scripts / "pwn.py"),
        "read outside": use("Read", file_path=str(outside / "secret")),
        "read outside by a link": use("Read", file_path=str(project / "out/secret")),
        "read the user's files": use("Read", file_path=str(bench.world.home / ".claude.json")),
        "notebook": use("NotebookEdit", notebook_path=str(project / "pwn.ipynb"), new_source="x", edit_mode="insert"),
        "subagent": use("Agent", description="d", prompt="p", subagent_type="general-purpose"),
        "web": use("WebFetch", url="http://127.0.0.1:1/", prompt="p"),
        "search": use("WebSearch", query="q"),
        "question": use("AskUserQuestion", questions=[]),
        "plan mode": use("EnterPlanMode"),
        "worktree": use("EnterWorktree", name="w"),
        "schedule": use("CronCreate", cron="* * * * *", prompt="p"),
        "MCP": use("mcp__server__tool"),
    }


def lay_traps(bench: ClaudeBench) -> None:
    """Links out of the project and onto what is read-only, a secret outside, and a project that allows itself more."""
    (bench.scripts.parent / "SKILL.md").write_text("skill\n", encoding="utf-8")
    (bench.world.folder / "secret").write_text("secret\n", encoding="utf-8")
    (bench.project / "models").mkdir()
    (bench.project / "models" / "link.py").symlink_to(bench.project / "prepare.py")
    (bench.project / "link.py").symlink_to(bench.scripts / "status.py")
    (bench.project / "out").symlink_to(bench.world.folder)
    subprocess.run("git init -q; git add .; git commit -qm x", shell=True, cwd=bench.project, check=True)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_allowlist_lets_the_loop_through_and_nothing_else(claude: ClaudeBench):
    """No dialog: each attempt is answered at once, and the turn goes on to its end."""
    lay_traps(claude)
    good, bad = allowed(claude), forbidden(claude)
    before = claude.project.joinpath("prepare.py").read_bytes()
    claude.start(permissions="allowlist")
    results = claude.do(*good.values(), *bad.values()).results
    assert len(results) == len(good) + len(bad)
    told = dict(zip([*good, *bad], results, strict=True))
    assert {name: told[name] for name in good if DENIED in told[name] or "error" in told[name].lower()} == {}
    assert {name: told[name][:200] for name in bad if DENIED not in told[name] and NO_TOOL not in told[name]} == {}
    assert [path for path in claude.world.folder.rglob("*pwn*") if "tmux" not in path.parts] == []
    assert claude.project.joinpath("prepare.py").read_bytes() == before
    assert claude.project.joinpath("train.py").read_bytes() == before
    assert not {"AskUserQuestion", "WebFetch", "Agent"} & set(claude.model.asked[-1].tools)


@pytest.mark.slow
def test_allowlist_holds_for_odd_paths_and_a_bundle_inside_the_project(claude: ClaudeBench):
    """As when the skill lies in the project's own .claude/skills. The project's settings can't end the mode."""
    claude.project = claude.world.folder / "my (odd) [pro]ject's *"
    claude.scripts = claude.project / ".claude" / "skills" / "autoresearch" / "scripts"
    claude.scripts.mkdir(parents=True)
    for name in ("status.py", "doctor.py"):
        (claude.scripts / name).write_text("print('RAN')\n", encoding="utf-8")
    (claude.project / "train.py").write_text("a = 1\n", encoding="utf-8")
    grant = {"permissions": {"defaultMode": "bypassPermissions"}}
    (claude.project / ".claude" / "settings.json").write_text(json.dumps(grant), encoding="utf-8")
    known = json.loads((claude.world.home / ".claude.json").read_text(encoding="utf-8"))
    known["projects"] = {str(claude.world.folder): {"hasTrustDialogAccepted": True}}
    (claude.world.home / ".claude.json").write_text(json.dumps(known), encoding="utf-8")
    claude.start(permissions="allowlist")
    relative = ".claude/skills/autoresearch/scripts"
    results = claude.do(
        run(f"python3 {relative}/status.py"),
        use("Read", file_path=str(claude.project / "train.py")),
        use("Write", file_path=str(claude.project / "train.py"), content="a = 2\n"),
        run(f"python3 {relative}/doctor.py"),
        run("touch pwn"),
    ).results
    assert results[0] == "RAN"
    assert "updated" in results[2]
    assert [DENIED in result for result in results] == [False, False, False, True, True]


@pytest.mark.slow
def test_users_own_grants_count_beside_the_list_but_not_for_what_is_denied(claude: ClaudeBench):
    settings = claude.world.home / ".claude" / "settings.json"
    settings.write_text(json.dumps({"permissions": {"allow": ["Bash(touch:*)", "WebFetch"]}}), encoding="utf-8")
    claude.start(permissions="allowlist")
    results = claude.do(
        run("touch granted"), run("mkdir pwn"), use("WebFetch", url="http://127.0.0.1:1", prompt="p")
    ).results
    assert (claude.project / "granted").exists()
    assert DENIED in results[1]
    assert NO_TOOL in results[2]


@pytest.mark.slow
def test_allowlist_holds_after_the_client_was_started_again(claude: ClaudeBench):
    claude.start(permissions="allowlist")
    claude.do()
    conversation = claude.facts().session_id
    claude.start(permissions="allowlist", conversation=conversation)
    assert claude.facts().session_id == conversation
    (result,) = claude.do(run("touch pwn")).results
    assert DENIED in result
