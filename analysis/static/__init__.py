"""Figures as files for print: the report's plotly figures drawn by matplotlib, trace by trace."""
