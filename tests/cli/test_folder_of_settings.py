"""The folder that a comparison's settings decide."""


def test_the_order_in_which_settings_are_typed_does_not_make_another_comparison(
    lastlayer, tiny_recipe, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = ("compare", "--recipe", tiny_recipe, "--heads", "softmax", "--seeds", 1, "--jobs", 1)
    settings = ["optimizer.lr=0.01", "optimizer.weight_decay=0.001"]
    for typed in (settings, settings[::-1]):
        printed = lastlayer(*words, "--steps", 5, "--set", *typed)
        assert printed.status == 0, printed.err
    assert len(list((tmp_path / "runs").iterdir())) == 1
    printed = lastlayer(*words, "--steps", 5, "--set", settings[0])
    assert printed.status == 0, printed.err
    assert len(list((tmp_path / "runs").iterdir())) == 2
