"""The figures for print show what plotly's show: the numbers of each artist are the trace's."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from fabricated_study import Fabricator, config
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from plotly.subplots import make_subplots

from analysis.__main__ import main
from analysis.figures import style
from analysis.results import Results
from analysis.sections import build_parts
from analysis.static.colours import colour, plain
from analysis.static.draw import draw_figure, draw_strips, print_style
from analysis.static.scatter import DASHES
from analysis.statistics import Interval


def drawn(figure: go.Figure, width: float = 6.5) -> Figure:
    canvas, left_out = draw_figure(figure, width)
    assert left_out == []
    return canvas


def alone(trace: Any, **layout: Any) -> Axes:
    return drawn(go.Figure(trace, layout=layout)).axes[0]


def lines(axes: Axes) -> list[tuple[list[float], list[float]]]:
    return [(list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))) for line in axes.lines]


def test_a_line_keeps_its_numbers_colour_dash_and_marker() -> None:
    trace = go.Scatter(x=[1, 2, 5], y=[3.0, None, 4.0], mode="lines+markers", marker={"symbol": "square", "size": 10},
                       line={"color": "#D55E00", "dash": "dash"})  # fmt: skip
    axes = alone(trace)
    (line,) = axes.lines
    assert list(line.get_xdata()) == [1, 2, 5]
    assert np.array_equal(line.get_ydata(), [3.0, np.nan, 4.0], equal_nan=True)
    assert to_rgba(line.get_color()) == to_rgba("#D55E00")
    assert (line.get_marker(), line.is_dashed()) == ("s", True)


@pytest.mark.parametrize(("shape", "steps"), [("hv", "steps-post"), ("vh", "steps-pre"), ("hvh", "steps-mid")])
def test_steps_stay_steps(shape: str, steps: str) -> None:
    axes = alone(go.Scatter(x=[0, 1], y=[2, 3], mode="lines", line={"shape": shape}))
    assert axes.lines[0].get_drawstyle() == steps


def test_error_bars_reach_as_far() -> None:
    intervals = [Interval(3, 2.0, 1.0, 4.0), Interval(3, 5.0, 4.5, 5.25)]
    bars = style.error_bars(intervals, "linear")
    axes = alone(go.Scatter(x=[1, 2], y=[2.0, 5.0], mode="markers", error_y=bars, error_x={"array": [0.1, 0.2]}))
    ends = {tuple(float(f"{number:.9g}") for number in segment.ravel())
            for bar in axes.collections for segment in bar.get_segments()}  # fmt: skip
    assert ends == {(1, 1, 1, 4), (2, 4.5, 2, 5.25), (0.9, 2, 1.1, 2), (1.8, 5, 2.2, 5)}


def test_a_band_is_the_same_polygon() -> None:
    trace = go.Scatter(x=[1, 2, 2, 1], y=[0, 1, 3, 4], fill="toself", mode="lines", fillcolor="rgba(0,114,178,0.16)",
                       line={"width": 0})  # fmt: skip
    (band,) = alone(trace).patches
    assert band.get_path().vertices[:4].tolist() == [[1, 0], [2, 1], [2, 3], [1, 4]]
    assert band.get_facecolor() == pytest.approx((0, 114 / 255, 178 / 255, 0.16))


def test_points_of_many_colours_carry_a_colour_bar() -> None:
    marks = {"color": [0.0, 1.0, 2.0], "colorscale": style.SEQUENTIAL, "showscale": True,
             "colorbar": {"title": {"text": "NFE"}, "tickvals": [0, 1], "ticktext": ["1", "10"]}}  # fmt: skip
    canvas = drawn(go.Figure(go.Scatter(x=[1, 2, 3], y=[4, 5, 6], mode="markers", marker=marks)))
    points = canvas.axes[0].collections[0]
    assert points.get_offsets().tolist() == [[1, 4], [2, 5], [3, 6]]
    faces = points.get_facecolors()
    assert faces[0] == pytest.approx(
        colour(go.Figure(go.Heatmap(colorscale=style.SEQUENTIAL)).data[0].colorscale[0][1])
    )
    assert canvas.axes[1].get_ylabel() == "NFE"
    assert [tick.get_text() for tick in canvas.axes[1].get_yticklabels()] == ["1", "10"]


def test_text_stands_at_its_point() -> None:
    axes = alone(go.Scatter(x=[1, 2], y=[3, 4], mode="text", text=["5", "<b>10</b>"], textposition="top center"))
    assert [(note.get_text(), note.xy) for note in axes.texts] == [("5", (1, 3)), ("10", (2, 4))]


@pytest.mark.parametrize("mode", ["stack", "group"])
@pytest.mark.parametrize("flat", [False, True])
def test_bars_stand_on_or_beside_one_another(mode: str, flat: bool) -> None:
    def bar(values: list[float]) -> go.Bar:
        names = ["a", "b"]
        return go.Bar(x=values, y=names, orientation="h") if flat else go.Bar(x=names, y=values)

    axes = alone([bar([1, 2]), bar([3, 4])], barmode=mode)
    boxes = [patch.get_bbox() for patch in axes.patches]
    sizes = [box.width if flat else box.height for box in boxes]
    starts = [box.x0 if flat else box.y0 for box in boxes]
    centres = [round((box.y0 + box.y1 if flat else box.x0 + box.x1) / 2, 9) for box in boxes]
    assert sizes == [1, 2, 3, 4]
    assert starts == ([0, 0, 1, 2] if mode == "stack" else [0, 0, 0, 0])
    assert centres == ([0, 1, 0, 1] if mode == "stack" else [-0.2, 0.8, 0.2, 1.2])


def test_cells_keep_their_numbers_and_texts() -> None:
    texts = [["one", "no run"], ["three", "4"]]
    trace = go.Heatmap(z=[[1.0, None], [3.0, 4.0]], x=["p", "q"], y=["r", "s"], texttemplate="%{text}", text=texts,
                       colorscale=style.SEQUENTIAL, reversescale=True)  # fmt: skip
    canvas = drawn(go.Figure(trace))
    axes = canvas.axes[0]
    (mesh,) = axes.collections
    assert np.array_equal(np.ma.filled(mesh.get_array(), np.nan).reshape(2, 2), [[1, np.nan], [3, 4]], equal_nan=True)
    assert [text.get_text() for text in axes.texts] == ["one", "no run", "three", "4"]
    least = mesh.to_rgba(1.0)
    assert least == pytest.approx(colour(trace.colorscale[-1][1]), abs=0.01)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["r", "s"]


@pytest.mark.parametrize(("norm", "heights"), [(None, [2, 1, 0, 1]), ("percent", [50, 25, 0, 25])])
def test_counts_are_those_of_the_bins(norm: str | None, heights: list[float]) -> None:
    trace = go.Histogram(x=[0.1, 0.4, 0.6, 1.9], xbins={"start": 0, "end": 2, "size": 0.5}, histnorm=norm)
    (steps,) = alone(trace).patches
    assert steps.get_data().values.tolist() == heights
    assert steps.get_data().edges.tolist() == [0, 0.5, 1, 1.5, 2]


def test_boxes_have_plotlys_quartiles() -> None:
    axes = alone(go.Box(y=[1, 2, 3, 4, 5, 6, 7, 8, 9, 40], name="a"))
    heights = sorted({float(value) for line in axes.lines for value in line.get_ydata()})
    assert heights == [1, 3, 5.5, 8, 9, 40]  # Hazen's quartiles, the whisker's ends, and the point beyond


def test_pixels_stay_where_they_are() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    (picture,) = alone(go.Image(z=pixels)).images
    assert np.array_equal(picture.get_array(), pixels)
    assert picture.get_extent() == [-0.5, 3.5, 1.5, -0.5]


def test_axes_scale_order_and_tick_as_they_do() -> None:
    figure = go.Figure(go.Scatter(x=[1, 10], y=["low", "high"]))
    figure.update_xaxes(type="log", tickvals=[1, 3, 10], ticktext=["1", "3", "10"], title_text="calls")
    figure.update_yaxes(categoryarray=["high", "low", "none"], autorange="reversed")
    axes = drawn(figure).axes[0]
    assert axes.get_xscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "3", "10"]
    assert axes.get_xlabel() == "calls"
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["high", "low", "none"]
    assert lines(axes) == [([1, 10], [1, 0])]
    assert axes.yaxis_inverted()


def test_ranges_are_kept() -> None:
    figure = go.Figure(go.Scatter(x=[1, 10], y=[2, 3]))
    figure.update_xaxes(type="log", range=[-1, 2]).update_yaxes(rangemode="tozero")
    axes = drawn(figure).axes[0]
    assert axes.get_xlim() == pytest.approx((0.1, 100))
    assert axes.get_ylim()[0] == 0


def test_subplots_stand_in_their_grid_with_their_titles_and_lines() -> None:
    figure = make_subplots(2, 2, subplot_titles=["a", "b", "c", "d"], shared_xaxes="all",
                           specs=[[{}, {}], [{"colspan": 2}, None]])  # fmt: skip
    for row, column in ((1, 1), (1, 2), (2, 1)):
        figure.add_scatter(x=[row], y=[column], row=row, col=column)
    figure.add_hline(y=7, line={"dash": "dot"}, row=1, col=2)
    axes = drawn(figure).axes
    spans = [(one.get_subplotspec().rowspan, one.get_subplotspec().colspan) for one in axes]
    assert [(list(rows), list(columns)) for rows, columns in spans] == [([0], [0]), ([0], [1]), ([1], [0, 1])]
    assert [one.get_title() for one in axes] == ["a", "b", "c"]
    assert [len(one.lines) for one in axes] == [1, 2, 1]
    assert list(axes[1].lines[1].get_ydata()) == [7, 7]
    assert axes[0].get_shared_x_axes().joined(axes[0], axes[1])


def test_the_legend_has_the_names_once() -> None:
    figure = go.Figure([
        go.Scatter(x=[1], y=[1], name="<i>one</i>"), go.Scatter(x=[1], y=[2], name="x", showlegend=False),
        go.Scatter(x=[1], y=[2], name="two", visible=False), go.Bar(x=[1], y=[2], name="a $ b"),
    ])  # fmt: skip
    canvas = drawn(figure)
    assert [text.get_text() for text in canvas.legends[0].get_texts()] == ["one", r"a \$ b"]


def test_what_cannot_be_drawn_is_named_and_marked() -> None:
    figure = go.Figure([go.Scatter(x=[1], y=[1]), go.Contour(z=[[1, 2], [3, 4]])])
    canvas, left_out = draw_figure(figure, 6.5)
    assert left_out == ["a trace of type 'contour'"]
    assert "not drawn: a trace of type 'contour'" in [text.get_text() for text in canvas.axes[0].texts]
    canvas, left_out = draw_figure(go.Figure(go.Scatter3d(x=[1], y=[1], z=[1])), 6.5)
    assert left_out == ["a trace of type 'scatter3d'"]
    assert canvas.texts[0].get_text() == "not drawn: a trace of type 'scatter3d'"


def test_colours_and_texts() -> None:
    assert colour("rgba(255, 0, 0, 0.5)", 0.5) == (1, 0, 0, 0.25)
    assert plain("a<br>b <b>c</b> &lt; 1, t < 2") == "a\nb c < 1, t < 2"
    assert set(DASHES) >= set(style.DASHES)


@pytest.fixture(scope="module")
def figures(results: Results, parts: list[Results], ldsb_results: Results) -> dict[str, go.Figure]:
    """Every figure of the fabricated studies."""
    shown = [*build_parts([results]), *build_parts(parts), *build_parts([ldsb_results])]
    panels = [panel for part in shown for section in part.sections for panel in section.panels]
    return {f"{number} {panel.key}": panel.figure for number, panel in enumerate(panels) if panel.figure is not None}


def test_every_trace_of_the_reports_figures_is_drawn_with_its_numbers(figures: dict[str, go.Figure]) -> None:
    assert len(figures) > 30
    for name, figure in figures.items():
        canvas, left_out = draw_figure(figure, 3.3)
        assert left_out == [], name
        held = [artist for axes in canvas.axes for artist in axes.get_children()]
        seen = {tuple(np.nan_to_num(np.asarray(line.get_ydata(), dtype=float)).tolist())
                for line in held if isinstance(line, Line2D)}  # fmt: skip
        for trace in figure.data:
            if as_line(trace):
                values = [0.0 if value is None else float(value) for value in trace.y]
                assert tuple(np.nan_to_num(values).tolist()) in seen, (name, trace.name)


def as_line(trace: Any) -> bool:
    """Whether a trace becomes one line or row of markers: no text, band, list of colours or categories."""
    if trace.type != "scatter" or trace.mode == "text" or (trace.fill and trace.line.width == 0):
        return False
    listed = trace.marker.color is not None and not isinstance(trace.marker.color, str)
    return bool(len(trace.y)) and not listed and not any(isinstance(value, str) for value in trace.y)


def test_the_command_writes_every_figure_with_its_caption(study: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["figures", str(study), "--format", "pdf", "--out", str(tmp_path), "--width", "3.3"]) == 0
    printed = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(printed) == sorted(tmp_path.iterdir())
    pictures = [path for path in printed if path.suffix == ".pdf"]
    assert {"heat_map.pdf", "samples.pdf", "pareto.pdf"} <= {path.name for path in pictures}
    content = (tmp_path / "pareto.pdf").read_bytes()
    assert content.startswith(b"%PDF") and b"/FontFile2" in content  # TrueType, in the file
    captions = (tmp_path / "captions.md").read_text()
    assert all(f"## {path.stem}\n" in captions for path in pictures)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of one run."""
    folder = tmp_path_factory.mktemp("small")
    Fabricator(folder).run(config(), 0)
    return folder


CLIP = re.compile(r"\bp[0-9a-f]{10}\b")
"""The name of a clipping rectangle, which matplotlib makes from its corners to the last bit."""


def test_the_same_records_give_the_same_file(small: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert main(["figures", str(small), "--format", "svg", "--out", str(tmp_path / name)]) == 0
    for path in (tmp_path / "one").iterdir():
        one, two = (CLIP.sub("", (tmp_path / name / path.name).read_text()) for name in ("one", "two"))
        assert one == two, path.name


def test_strips_are_one_picture(results: Results) -> None:
    panels = [panel for part in build_parts([results]) for section in part.sections for panel in section.panels]
    strips = next(panel.strips for panel in panels if panel.strips)
    with print_style():
        canvas = draw_strips(strips, 6.5)
    shown = [axes for axes in canvas.axes if axes.images]
    assert len(shown) == sum(len(strip.pictures) for strip in strips)
    assert [part.get_suptitle() for part in canvas.subfigs] == [strip.label for strip in strips]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["figures", "{empty}"], "holds no study.json"),
        (["figures", "{absent}"], "no such folder"),
        (["figures", "{bare}"], "no run has been recorded yet"),
        (["figures", "{study}", "--out", "/dev/null/x"], "cannot be written"),
    ],
)
def test_wrong_input_is_one_line(arguments: list[str], message: str, study: Path, tmp_path: Path, capsys: Any) -> None:
    Fabricator(tmp_path / "bare")
    (tmp_path / "empty").mkdir()
    places = {"empty": tmp_path / "empty", "absent": tmp_path / "absent", "bare": tmp_path / "bare", "study": study}
    assert main([part.format(**places) for part in arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("width", ["1", "nan", "wide"])
def test_a_width_that_is_none(width: str, study: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["figures", str(study), "--width", width])
    assert caught.value.code == 2


def test_one_seed_and_a_torn_part(tmp_path: Path, capsys: Any) -> None:
    Fabricator(tmp_path).run(config(), 0)
    (tmp_path / "records/metrics/torn.parquet").write_bytes(b"PAR1 and then nothing")
    assert main(["figures", str(tmp_path), "--format", "png"]) == 1
    captured = capsys.readouterr()
    assert "cannot read" in captured.err and "torn.parquet" in captured.err
    assert (tmp_path / "figures" / "pareto.png").is_file()


def test_it_loads_neither_torch_nor_ray(small: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from analysis.__main__ import main; "
        f"main(['figures', {str(small)!r}, '--format', 'png', '--out', {str(tmp_path)!r}]); "
        "print({'torch', 'ray', 'matplotlib.pyplot', 'kaleido'} & sys.modules.keys())"
    )
    environment = {**os.environ, "MPLBACKEND": "QtAgg"}  # a reader's own backend has no part in it
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == "set()"
