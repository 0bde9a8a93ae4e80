"""What the package adds; importing it imports neither torch nor nnU-Net."""

from nnunet_ext.registry import Entry

ENTRIES = (
    Entry(
        "trainer",
        "nnUNetTrainerExample",
        "example_plugin.classes",
        "an example that needs clicks",
        family="samus",
        configuration="2d",
        planner="ExamplePlanner",
        plans="nnUNetExamplePlans",
        prompts="click",
        best_checkpoint=True,
        follows_environment=True,
    ),
    Entry("planner", "ExamplePlanner", "example_plugin.classes", "an example", plans="nnUNetExamplePlans"),
    Entry("normalization", "ExampleNormalization", "example_plugin.classes", "an example"),
    Entry("resampling", "example_resize", "example_plugin.classes", "an example"),
)
