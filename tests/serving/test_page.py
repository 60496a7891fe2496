"""The page of the service, in a real browser: what a person does to have an image classified."""

import pytest
from playwright.sync_api import expect

from tests.browser import MARKS, chromium
from tests.serving.test_prediction import graph
from tests.serving.test_service import COLOURS, png, running

pytestmark = [*MARKS, pytest.mark.timeout(300)]

PASTE = """content => {
    const file = new File([Uint8Array.from(content)], "pasted.png", {type: "image/png"});
    const clipboard = new DataTransfer();
    clipboard.items.add(file);
    document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: clipboard}));
}"""


@pytest.fixture
def address(tmp_path, processed, environment):
    model = graph(tmp_path / "model.onnx")
    (tmp_path / "MODEL_CARD.md").write_text("# A card\n\nFor <b>tests</b>.\n")
    with running(model, environment, "--data", str(processed)) as (url, _):
        yield url


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_images_are_classified_on_the_page(address, tmp_path, width, scheme):
    """Chosen, pasted, or a test image; what is no image has a reason; nothing is loaded from elsewhere."""
    for number, name in enumerate(("red", "green", "blue")):
        (tmp_path / f"{name}.png").write_bytes(png(COLOURS[number]))
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with chromium() as browser:
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        problems, hosts = [], set()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        page.goto(address)
        expect(page.get_by_role("status")).to_contain_text("red, green, blue")
        page.get_by_label("choose files").set_input_files([tmp_path / "red.png", tmp_path / "blue.png"])
        for colour in ("red", "blue"):
            result = page.get_by_role("article").filter(has=page.get_by_role("heading", name=f"{colour}.png"))
            expect(result.locator(".answer")).to_have_text(f"{colour}, 100.0 %")
            expect(result.locator("dt")).to_have_count(3)
        page.evaluate(PASTE, list(png(COLOURS[1])))
        expect(page.get_by_role("article").filter(has_text="pasted.png")).to_contain_text("green, 100.0 %")
        page.get_by_label("take a photo").set_input_files(tmp_path / "broken.png")
        expect(page.get_by_role("article").filter(has_text="broken.png")).to_contain_text(
            "not an image in a supported"
        )
        example = page.locator(".examples button").first
        example.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("article")).to_have_count(5)
        page.get_by_text("Model card").click()
        expect(page.locator("#card")).to_contain_text("For <b>tests</b>.")
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, "the page scrolls sideways"
        assert page.locator(".examples button").count() == 10
    assert problems == []
    assert {host for host in hosts if host} == {address.removeprefix("http://")}
