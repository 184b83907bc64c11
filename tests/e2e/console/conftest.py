"""One browser for the console's tests, and a page for each wallet."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from eth_account.signers.local import LocalAccount
from network import Bench
from PIL import Image
from playwright.sync_api import (
    BrowserContext,
    ConsoleMessage,
    Page,
    Playwright,
    expect,
    sync_playwright,
)
from wallets import BrowserWallet

from scripts.chain import ROOT

PICTURES = ROOT / "docs" / "pictures"
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 20_000
"""Milliseconds that a page may take for one step."""


class Visitor:
    """Somebody in front of a browser of their own, with a wallet in it."""

    def __init__(self, context: BrowserContext, wallet: BrowserWallet, url: str) -> None:
        self.context = context
        self.wallet = wallet
        self.url = url
        self.faults: list[str] = []
        context.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        wallet.announce(context)
        self.page = self.open()

    def open(self) -> Page:
        """Another tab; what its console complains of is kept."""
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self._hear)
        page.on("dialog", lambda dialog: dialog.accept())
        return page

    def _hear(self, said: ConsoleMessage) -> None:
        # A refusal of the API is the page's to explain; what a policy blocks or breaks is a fault.
        if said.type == "error" and not said.text.startswith("Failed to load resource"):
            self.faults.append(said.text)

    def go(self, path: str) -> Page:
        self.page.goto(f"{self.url}/console/{path}")
        return self.page

    def sign_in(self) -> Page:
        page = self.go("")
        page.get_by_role("button", name="Sign in with Test Wallet").click()
        page.wait_for_url(lambda url: not url.rstrip("/").endswith("/console"))
        return page


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


@pytest.fixture
def picture(tmp_path: Path) -> Callable[[Page, str], None]:
    """Keep a picture of a page: as an artefact, and with RAPHA_PICTURES=1 for the documents too."""

    def take(page: Page, name: str) -> None:
        shown = Image.open(io.BytesIO(page.screenshot(full_page=True)))
        folders = [tmp_path, *([PICTURES] if os.environ.get("RAPHA_PICTURES") else [])]
        for folder in folders:
            # few colours are enough for pages, and a fifth of the bytes
            shown.convert("RGB").quantize(96).save(folder / f"{name}.png", optimize=True)

    return take


Visits = Callable[..., Visitor]


@pytest.fixture(scope="module")
def visit(
    bench: Bench, playwright: Playwright, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Visits]:
    """A browser for whoever holds this key."""
    contexts: list[BrowserContext] = []

    def visiting(account: LocalAccount, *, contract: str | None = None) -> Visitor:
        profile: Path = tmp_path_factory.mktemp("browser")
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=CHROMIUM,
            headless=True,
            args=ARGUMENTS,
            viewport={"width": 1100, "height": 800},
            accept_downloads=True,
        )
        contexts.append(context)
        net = bench.net
        wallet = BrowserWallet(account, net.w3, net.w3.eth.chain_id, contract=contract)
        return Visitor(context, wallet, net.url("hub"))

    yield visiting
    for context in contexts:
        context.close()
