"""git, as `course update` needs it: one clone, asked and moved forward by the git program. Every refusal is a sentence.

Knows nothing of notebooks, answers or reports.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path


class Refused(Exception):
    """The update cannot go on; the message says why and what to do."""


class GitFailed(Refused):
    """A git command that failed; the message carries git's own words."""


_IN_PROGRESS = {
    "MERGE_HEAD": ("a merge", "git merge --abort"),
    "rebase-merge": ("a rebase", "git rebase --abort"),
    "rebase-apply": ("a rebase", "git rebase --abort"),
    "CHERRY_PICK_HEAD": ("a cherry-pick", "git cherry-pick --abort"),
    "REVERT_HEAD": ("a revert", "git revert --abort"),
    "BISECT_LOG": ("a bisect", "git bisect reset"),
}


class Clone:
    """The learner's clone at `root`."""

    def __init__(self, root: Path):
        self.root = root
        if shutil.which("git") is None:
            raise Refused(
                "git is not installed, and this folder is a git clone. Install git (for example: apt install git), then run course update again."
            )

    # -- asking

    def run(self, *args: str, timeout: float | None = 120) -> bytes:
        """The output of a git command; GitFailed with git's words where it fails."""
        command = ["git", "-c", "core.fileMode=false", "-c", "core.quotePath=false", "-c", "merge.autoStash=false", *args]
        try:
            done = subprocess.run(command, cwd=self.root, env=_environment(), capture_output=True, timeout=timeout, stdin=_stdin())
        except subprocess.TimeoutExpired:
            raise GitFailed(
                f"git {args[0]} did not answer within {timeout:.0f} seconds. Check the connection, then run course update again."
            ) from None
        if done.returncode:
            words = done.stderr.decode(errors="replace").strip() or done.stdout.decode(errors="replace").strip() or f"exit code {done.returncode}"
            raise GitFailed(f"git {args[0]} failed: {words}")
        return done.stdout

    def ask(self, *args: str) -> str:
        """The output of a git command as text; empty where it fails."""
        try:
            return self.run(*args).decode(errors="replace").strip()
        except GitFailed:
            return ""

    def paths(self, *args: str) -> list[str]:
        """The output of a git command that lists paths (-z)."""
        return [path for path in self.run(*args).decode(errors="surrogateescape").split("\0") if path]

    def blob(self, commit: str, path: str) -> bytes | None:
        """A file as it was at a commit; None where it was not."""
        if not self.ask("ls-tree", "--name-only", commit, "--", path):
            return None
        return self.run("cat-file", "blob", f"{commit}:{path}")

    def staged(self, path: str) -> bytes | None:
        """A file as it stands in the index."""
        try:
            return self.run("cat-file", "blob", f":{path}")
        except GitFailed:
            return None

    def head(self) -> str:
        return self.ask("rev-parse", "--verify", "HEAD^{commit}")

    def contains(self, older: str, newer: str) -> bool:
        """Whether `older` is `newer` or one of its ancestors."""
        try:
            self.run("merge-base", "--is-ancestor", older, newer)
        except GitFailed:
            return False
        return True

    def changed_here(self) -> list[str]:
        """Tracked files that differ from HEAD, in the folder or in the index; files added to the index are not among them."""
        entries = self.paths("status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=no", "--ignore-submodules")
        return [entry[3:] for entry in entries if entry[0] != "A"]

    def incoming(self, old: str, new: str) -> dict[str, str]:
        """What differs between two commits: {path: A, M or D}."""
        fields = self.paths("diff", "--name-status", "-z", "--no-renames", old, new)
        return {path: state[0] for state, path in zip(fields[::2], fields[1::2], strict=True)}

    def renames(self, old: str, new: str) -> dict[str, str]:
        """Files that were renamed between two commits: {old path: new path}."""
        fields = self.paths("diff", "--name-status", "-z", "-M", "--diff-filter=R", old, new)
        return dict(zip(fields[1::3], fields[2::3], strict=True))

    def subjects(self, old: str, new: str) -> list[str]:
        """The first lines of the commits from old (left out) to new, newest first."""
        return self.ask("log", "--no-merges", "--format=%s", f"{old}..{new}").splitlines()

    # -- the state it must be in

    def check(self) -> None:
        """Refused, unless this is the course's own clone, on a branch, with nothing half done."""
        try:
            top = self.run("rev-parse", "--show-toplevel").decode(errors="replace").strip()
        except GitFailed as why:
            if "dubious ownership" in str(why):
                raise Refused(
                    f"git does not trust this folder, because another user owns it. Run: git config --global --add safe.directory {self.root}"
                ) from None
            raise
        if Path(top).resolve() != self.root.resolve():
            raise Refused(f"{self.root} is not a git clone of its own: it lies inside the repository {top}. " + FROM_ARCHIVE)
        if not self.head():
            raise Refused("this clone has no commit yet, so there is nothing to compare your work with. Clone the course again.")
        folder = self.root / self.ask("rev-parse", "--git-dir")
        for name, (what, way_out) in _IN_PROGRESS.items():
            if (folder / name).exists():
                raise Refused(f"{what} is in progress in this clone. Finish it or give it up ({way_out}), then run course update again.")
        if self.paths("ls-files", "-u", "-z"):
            raise Refused("this clone has files with merge conflicts. Resolve them (git status lists them), then run course update again.")
        if not self.branch():
            raise Refused(
                "this clone is not on a branch (detached HEAD). "
                "Go to the course's branch, for example: git switch main. Then run course update again."
            )

    def branch(self) -> str:
        return self.ask("symbolic-ref", "--short", "-q", "HEAD")

    def source(self) -> tuple[str, str]:
        """Where the course comes from: (remote, branch there). A remote named `upstream` goes before the branch's own."""
        remotes = self.ask("remote").splitlines()
        branch = self.branch()
        if "upstream" in remotes:
            return "upstream", branch
        remote = self.ask("config", f"branch.{branch}.remote")
        if remote in remotes:
            return remote, self.ask("config", f"branch.{branch}.merge").removeprefix("refs/heads/") or branch
        if not remotes:
            raise Refused(
                "this clone has no remote, so there is nothing to fetch from. Add one (git remote add origin URL), or run: course update --from PATH"
            )
        return ("origin" if "origin" in remotes else remotes[0]), branch

    # -- moving

    def fetch(self, remote: str, branch: str) -> str:
        """Fetch the branch; the commit it stands at."""
        try:
            self.run("fetch", "--quiet", "--no-tags", remote, f"refs/heads/{branch}" if branch != "HEAD" else "HEAD", timeout=300)
        except GitFailed as why:
            words = str(why)
            if "couldn't find remote ref" in words:
                raise Refused(
                    f"{remote} has no branch {branch}. Go to the course's branch (for example: git switch main), then run course update again."
                ) from None
            raise Refused(
                f"the course could not be fetched from {remote}; nothing was changed. Check the connection, then run course update again.\n{words}"
            ) from None
        return self.ask("rev-parse", "--verify", "FETCH_HEAD^{commit}")

    def restore(self, paths: list[str]) -> None:
        """Put files back as they are at HEAD, in the folder and in the index."""
        for start in range(0, len(paths), 100):
            self.run("checkout", "-q", "HEAD", "--", *(f":(literal){path}" for path in paths[start : start + 100]))

    def forward(self, commit: str) -> None:
        """Move branch and files to a commit ahead of HEAD."""
        self.run("merge", "--ff-only", "--quiet", "--no-stat", commit, timeout=600)

    def wait_for_lock(self, since: float, seconds: float = 5.0) -> None:
        """Wait for another git process; take away the lock that an interrupted update left (`since`: when that update began)."""
        lock = self.root / self.ask("rev-parse", "--git-path", "index.lock")
        for _ in range(int(seconds / 0.1)):
            if not lock.exists():
                return
            time.sleep(0.1)
        if 0 <= lock.stat().st_mtime - since + 2 < 600:
            lock.unlink(missing_ok=True)
            return
        raise Refused(
            f"another git process is at work in this clone, or was interrupted. If none is running, delete {lock} and run course update again."
        )


FROM_ARCHIVE = "To update from a newer archive, unpack it beside this folder and run: course update --from PATH"


def is_clone(folder: Path) -> bool:
    return (folder / ".git").exists()


def _stdin():
    return None if sys.stdin is not None and sys.stdin.isatty() else subprocess.DEVNULL


def _environment() -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name.startswith(("GIT_SSH", "GIT_CONFIG", "GIT_ASKPASS"))
    }
    prompt = {} if _stdin() is None else {"GIT_TERMINAL_PROMPT": "0"}
    return kept | prompt | {"LC_ALL": "C", "LANGUAGE": "C"}
