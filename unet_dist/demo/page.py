"""The page: drop an image, see it under its labels, take the label map away.

Owns what stands on the page, and that nothing on it comes from elsewhere. The one module that knows gradio.
"""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unet_dist.demo.gate import Gate, own_names
from unet_dist.demo.labelling import Labelled
from unet_dist.errors import ExtraError, LaunchError, UnetDistError
from unet_dist.imaging.formats import image_suffixes
from unet_dist.imaging.palette import IGNORED_COLOUR, class_palette
from unet_dist.wording import markdown

Label = Callable[[Path, Callable[[int, int], None]], Labelled]

_AT_ONCE, _WAITING = 2, 32
"""Images labelled at once, so that a slow one leaves room for others; and those that wait before others are sent away."""

_STYLE = """
.seen { position: relative; display: inline-block; max-width: 100%; line-height: 0; cursor: crosshair; }
.seen img { max-width: 100%; image-rendering: auto; }
.seen img.colours { position: absolute; inset: 0; width: 100%; height: 100%; image-rendering: pixelated; opacity: 0.55; }
.seen output { position: absolute; padding: 0.1rem 0.5rem; border-radius: 3px; background: #000c; color: #fff; line-height: 1.5;
  pointer-events: none; white-space: nowrap; transform: translate(-50%, -130%); }
.seen output:empty { display: none; }
.opacity { display: flex; align-items: center; gap: 0.6rem; margin: 0.5rem 0; }
.opacity input { flex: 0 1 20rem; }
.legend { display: flex; flex-wrap: wrap; gap: 0.3rem 1rem; }
.legend span.class { display: inline-flex; align-items: center; gap: 0.4rem; }
.legend i { width: 1rem; height: 1rem; border: 1px solid #888; border-radius: 2px; }
.legend small { opacity: 0.75; }
"""

_SCRIPT = """<script>
function unetName(event, seen) {
  const colours = seen.querySelector("img.colours"), output = seen.querySelector("output");
  if (!seen.pixels && colours.complete) {
    const canvas = document.createElement("canvas");
    canvas.width = colours.naturalWidth; canvas.height = colours.naturalHeight;
    seen.pixels = canvas.getContext("2d", {willReadFrequently: true});
    seen.pixels.drawImage(colours, 0, 0);
    seen.names = JSON.parse(seen.dataset.names);
  }
  if (!seen.pixels) return;
  const box = seen.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
  const column = Math.floor(x / box.width * colours.naturalWidth), row = Math.floor(y / box.height * colours.naturalHeight);
  output.textContent = seen.names[seen.pixels.getImageData(column, row, 1, 1).data.slice(0, 3).join()] || "";
  output.style.left = x + "px"; output.style.top = y + "px";
}
</script>"""
"""The class under the pointer, read from the picture of the labels. Gradio runs no script in a component, only in the head."""


def require_gradio(folder: Path) -> Any:
    """Import gradio with everything off that talks to others.

    Args:
        folder: for its files.

    Raises:
        ExtraError: it is not installed.
    """
    # Read when it is imported.
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=str(folder), HF_HUB_DISABLE_TELEMETRY="1")
    try:
        import gradio
    except ImportError as error:
        raise ExtraError(f"The demo page needs {error.name}: pip install 'unet_dist[demo]'.") from error
    return gradio


def as_share(share: float) -> str:
    """Per cent as people read it; a share above 0 never shows as 0."""
    return "under 0.1%" if share < 0.0005 else f"{share:.1%}"


def legend(shares: dict[int, float], class_names: Sequence[str]) -> str:
    """The classes that occur, as HTML: colour, name and share of the picture."""
    colours = class_palette(len(class_names))
    entries = []
    for index, share in shares.items():
        is_class = index < len(class_names)
        red, green, blue = colours[index] if is_class else IGNORED_COLOUR
        name = html.escape(class_names[index] if is_class else "no class")
        swatch = f'<i style="background: rgb({red}, {green}, {blue})"></i>'
        entries.append(f'<span class="class">{swatch}{name} <small>{as_share(share)}</small></span>')
    return f'<div class="legend">{"".join(entries)}</div>'


def seen(found: Labelled, class_names: Sequence[str]) -> str:
    """The image under its labels, as HTML: how much they cover is set by a slider, and the pointer shows the name of a class."""
    names = {
        ",".join(map(str, colour)): name
        for colour, name in zip(class_palette(len(class_names)), class_names, strict=True)
    }
    picture, colours = (base64.b64encode(data).decode() for data in (found.picture, found.colours))
    return (
        f'<div class="seen" data-names="{html.escape(json.dumps(names))}" onmousemove="unetName(event, this)" '
        "onmouseleave=\"this.querySelector('output').textContent = ''\">"
        f'<img class="picture" alt="the image" src="data:image/webp;base64,{picture}">'
        f'<img class="colours" alt="its labels" src="data:image/png;base64,{colours}"><output></output></div>'
        '<label class="opacity">image <input type="range" min="0" max="100" value="55" aria-label="opacity of the labels" '
        "oninput=\"this.closest('.opacity').parentElement.querySelector('img.colours').style.opacity = this.value / 100\"> "
        "labels</label>"
    )


def make_page(gradio: Any, label: Label, class_names: Sequence[str], *, title: str, about: str) -> Any:
    """Lay out the page.

    Args:
        label: image and how far it is -> what became of it.
        about: a line under the title.
    """

    def answer(path: str | None, progress: Any = gradio.Progress()) -> tuple[Any, ...]:  # noqa: B008 (gradio finds it so)
        if path is None:
            return "", "", gradio.DownloadButton(interactive=False, value=None)
        try:
            found = label(Path(path), lambda done, total: progress((done, total), desc="windows", unit="batches"))
        except UnetDistError as error:
            # gradio names the file it keeps; the user knows it by its own name.
            raise gradio.Error(
                str(error).replace(path, Path(path).name), duration=None, print_exception=False
            ) from error
        note = "" if found.step == 1 else f"<p>Shown at 1/{found.step}; the label map has every pixel.</p>"
        button = gradio.DownloadButton(interactive=True, value=str(found.labels))
        return seen(found, class_names), legend(found.shares, class_names) + note, button

    # A browser cannot hand in a folder, nor a slide that is one.
    suffixes = [suffix for suffix in image_suffixes() if suffix not in (".zarr", ".mrxs")]
    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gradio.Markdown(f"# {markdown(title)}\n\n{about}")
        with gradio.Row():
            with gradio.Column(scale=1, min_width=260):
                image = gradio.File(label="Image", file_types=suffixes, type="filepath", elem_id="image", height=180)
                button = gradio.DownloadButton("Download the label map", interactive=False, elem_id="download")
            with gradio.Column(scale=3, min_width=320):
                view = gradio.HTML(elem_id="view", min_height=200)
                classes = gradio.HTML(elem_id="legend")
        image.change(answer, image, [view, classes, button], api_visibility="private", show_progress_on=[view])
    return page


def serve(gradio: Any, page: Any, *, host: str, port: int, max_upload_bytes: int) -> str:
    """Serve the page from threads of this process, to its own address only; returns it.

    Args:
        max_upload_bytes: of a file; a larger one is refused while it comes in.

    Raises:
        LaunchError: the port is taken.
    """
    from starlette.middleware import Middleware  # comes with gradio

    system = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # none is fetched
    try:
        _, address, _ = page.queue(default_concurrency_limit=_AT_ONCE, max_size=_WAITING).launch(
            server_name=host,
            server_port=port,
            share=False,
            max_file_size=max_upload_bytes,
            app_kwargs={"middleware": [Middleware(Gate, names=own_names(host))]},
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            footer_links=[],
            theme=gradio.themes.Default(**system),
            css=_STYLE,
            head=_SCRIPT,
        )
    except OSError as error:
        raise LaunchError(
            f"port: got {port} at {host}, which cannot be listened on ({error}). Choose another --port or --host."
        ) from error
    return str(address)
