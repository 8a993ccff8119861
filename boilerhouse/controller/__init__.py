"""The controller: it compares rows with what should be, and watches the engine."""
