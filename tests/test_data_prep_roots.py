import pytest

from data_prep.roots import find_root


def is_root(directory):
    return (directory / "query").is_dir()


def find(source, dataset="market1501"):
    return find_root(source, dataset, is_root, "a folder query", "Ask its owners.")


@pytest.mark.parametrize(
    "name",
    ["Market-1501-v15.09.15", "market1501", "Market-1501", "Market", "market_1501", "anything"],
)
def test_root_is_found_where_it_is_one_level_up_and_one_level_down(tmp_path, name):
    root = tmp_path / name
    (root / "query").mkdir(parents=True)
    assert find(root) == root
    assert find(root / "query") == root
    assert find(tmp_path) == root


def test_the_sets_own_name_comes_first_and_another_sets_never(tmp_path):
    for name in ("Market-1501", "DukeMTMC-reID", "mine"):
        (tmp_path / name / "query").mkdir(parents=True)
    assert find(tmp_path) == tmp_path / "Market-1501"
    assert find(tmp_path, "dukemtmc_reid") == tmp_path / "DukeMTMC-reID"
    # MSMT17 is not there; of the two known sets neither is taken for it.
    assert find(tmp_path, "msmt17") == tmp_path / "mine"


def test_a_path_is_not_taken_apart(tmp_path):
    root = tmp_path / "12_c3" / "Market"
    (root / "query").mkdir(parents=True)
    assert find(tmp_path / "12_c3") == root


def test_several_possible_roots_are_an_error_that_names_them(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "query").mkdir(parents=True)
    with pytest.raises(ValueError, match="one, two"):
        find(tmp_path)


def test_no_root_says_where_was_looked_and_what_for(tmp_path):
    (tmp_path / "here" / "empty").mkdir(parents=True)
    with pytest.raises(FileNotFoundError) as error:
        find(tmp_path / "here")
    for wanted in ("a folder query", str(tmp_path / "here" / "empty"), "Ask its owners."):
        assert wanted in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"nowhere is not a directory; .*Ask its owners"):
        find(tmp_path / "nowhere")
