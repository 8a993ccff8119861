"""The controller: compares rows with the desired state, and watches the engine."""
