"""The parts that all run cards share: single runs, sweeps, tables, figures and presets."""
