import pytest

from data_prep.datasets import root_names
from data_prep.errors import InputError, MissingFileError
from data_prep.roots import find_root


def is_root(directory):
    return (directory / "query").is_dir()


def find(source, dataset="market1501"):
    return find_root(source, dataset, root_names(), is_root, "a folder query", "Ask its owners.")


@pytest.mark.parametrize(
    "name",
    ["Market-1501-v15.09.15", "market1501", "Market-1501", "Market", "market_1501", "anything"],
)
def test_find_root_at_one_level_up_and_one_level_down(tmp_path, name):
    root = tmp_path / name
    (root / "query").mkdir(parents=True)
    assert find(root) == root
    assert find(root / "query") == root
    assert find(tmp_path) == root


def test_find_root_prefers_the_own_name_and_skips_names_of_other_datasets(tmp_path):
    for name in ("Market-1501", "DukeMTMC-reID", "mine"):
        (tmp_path / name / "query").mkdir(parents=True)
    assert find(tmp_path) == tmp_path / "Market-1501"
    assert find(tmp_path, "dukemtmc_reid") == tmp_path / "DukeMTMC-reID"
    # MSMT17 is not there; neither of the two named datasets is taken for it.
    assert find(tmp_path, "msmt17") == tmp_path / "mine"
    # A dataset without names of its own may be in a directory of any name.
    with pytest.raises(InputError, match="DukeMTMC-reID, Market-1501, mine"):
        find(tmp_path, "folder")


def test_find_root_looks_inside_the_source_before_it_looks_around_it(tmp_path):
    for name in ("photos/shop/query", "query"):
        (tmp_path / name).mkdir(parents=True)
    assert find(tmp_path / "photos", "folder") == tmp_path / "photos" / "shop"
    assert find(tmp_path / "photos") == tmp_path / "photos" / "shop"


def test_find_root_passes_over_directories_that_cannot_be_read(tmp_path):
    (tmp_path / "mine" / "query").mkdir(parents=True)
    (tmp_path / "lost+found").mkdir()

    def refuse(directory):
        if directory.name == "lost+found":
            raise PermissionError(directory)
        return is_root(directory)

    found = find_root(tmp_path, "folder", root_names(), refuse, "a folder query")
    assert found == tmp_path / "mine"


def test_find_root_ignores_numbers_in_the_path(tmp_path):
    root = tmp_path / "12_c3" / "Market"
    (root / "query").mkdir(parents=True)
    assert find(tmp_path / "12_c3") == root


def test_find_root_error_names_several_possible_roots(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "query").mkdir(parents=True)
    with pytest.raises(InputError, match="one, two"):
        find(tmp_path)


def test_find_root_error_says_where_it_searched_and_for_what(tmp_path):
    (tmp_path / "here" / "empty").mkdir(parents=True)
    with pytest.raises(MissingFileError) as error:
        find(tmp_path / "here")
    for wanted in ("a folder query", str(tmp_path / "here" / "empty"), "Ask its owners."):
        assert wanted in str(error.value)
    with pytest.raises(MissingFileError, match=r"nowhere is not a directory; .*Ask its owners"):
        find(tmp_path / "nowhere")
