"""The figures of a report: plotly figures that share one palette, carry their filters and state n, floor and null."""
