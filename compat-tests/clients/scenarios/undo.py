"""Undo as users do it: the list of what can be undone, one or several at once, and what others see of it."""
import base64
import threading

from harness.scenario import Skip, all_together, check, equal, per_generation, raises

from .basics import Z64, new_object
from .together import everybody

# ZEO 5 and 6 know only some errors of the server by their class.
UNDO_ERROR = "UndoError", "ServerException", "StorageError"


def needs_undo(generation, server, errors=False):
    """Where Python's servers are tested, some cannot do it."""
    if generation.age < 310 and server.program.is_python:
        raise Skip("ZEO 4 does not undo for these clients, their own servers did")
    if errors and generation.msgpack and server.program.is_python:
        raise Skip("clients cannot print the errors that Python's server sends with msgpack")


def undo_in(agent, *tids):
    """Undoes transactions in one; the tid, and what vote or undo said was changed."""
    agent.begin(h="a", description="undo")
    changed = set()
    told = []
    try:
        for tid in tids:
            answer = agent.undo(h="a", id=id_of(tid))
            if answer:
                told.append(answer[0])
                changed.update(answer[1])
        changed.update(agent.vote_changes(h="a"))
    except Exception:
        agent.abort(h="a")
        raise
    tid = agent.finish(h="a")
    check(set(told) <= {tid}, "undo told", told, "finish", tid)
    return tid, sorted(changed)


def id_of(tid):
    return base64.b64encode(bytes.fromhex(tid)).decode()


@per_generation()
def the_list_of_what_can_be_undone(world, generation):
    server = world.server(generation)
    needs_undo(generation, server)
    a = world.client(generation, server)
    oid, tid = new_object(a, value=0)
    tids = []
    for n in range(1, 7):
        user, path = f"/acl_users user{n % 2}", f"/site/{'news' if n % 3 else 'about'}/page"
        tid = a.commit(h="a", changes=[[oid, tid, n, 0]], user=user, description=path,
                       extension={"note": f"note {n}", "number": n})
        tids.insert(0, tid)
    log = a.undo_log(h="a", first=0, last=6)
    equal([d["tid"] for d in log], tids)
    newest = log[0]
    # Newer clients put a blank between the user folder's path and the user themselves.
    equal((newest["user"].strip(), newest["description"]), ("/acl_users user0", "/site/about/page"))
    equal(newest["more"], {"note": "note 6", "number": 6})
    check(newest["text_keys"], "keys are the client's str")
    equal(newest["id"], id_of(tids[0]))
    equal(newest["time"], a.history(h="a", oid=oid, size=1)[0]["time"])
    equal([d["tid"] for d in a.undo_log(h="a", first=1, last=3)], tids[1:3])
    equal([d["tid"] for d in a.undo_log(h="a", first=2, last=-3)], tids[2:5])
    equal(len(a.undo_log(h="a", first=0, last=-100)), 7)
    equal(a.undo_log(h="a", first=50, last=-5), [])

    # What a page shows: some of them, counted among those that fit.
    info = a.undo_info(h="a", first=0, last=-20, equal_to={"description": "/site/news/page"})
    equal([d["tid"] for d in info], [tids[1], tids[2], tids[4], tids[5]])
    info = a.undo_info(h="a", first=1, last=3, equal_to={"description": "/site/news/page"})
    equal([d["tid"] for d in info], [tids[2], tids[4]])
    equal(a.undo_info(h="a", equal_to={"description": "/site/news"}), [])
    equal([d["tid"] for d in a.undo_info(h="a", last=3)], tids[:3])


@per_generation()
def path_prefixes(world, generation):
    server = world.server(generation)
    if server.program.is_python:
        raise Skip("needs ZopeUndo in Python 2; in Python 3 it cannot be compared with the file's bytes")
    if generation.msgpack:
        raise Skip("msgpack has no way to say it")
    a = world.client(generation, server)
    oid, tid = new_object(a, value=0)
    for path in ("/site/news/page", "/site/newsletter", "/site/news", "/site"):
        tid = a.commit(h="a", changes=[[oid, tid, 1, 0]], user="/site/acl_users", description=path)
    # Versions of ZopeUndo have it as either kind of class.
    for new_style in (False, True):
        def found(prefix, **kw):
            info = a.undo_info(h="a", prefixes={"description": prefix}, new_style=new_style, **kw)
            return [d["description"] for d in info]

        equal(found("/site/news"), ["/site/news", "/site/news/page"])
        equal(found("/site"), ["/site", "/site/news", "/site/newsletter", "/site/news/page"])
        equal(found("/site", first=1, last=-2), ["/site/news", "/site/newsletter"])
        equal(found("/sit"), [])
        both = a.undo_info(h="a", prefixes={"description": "/site/news", "user_name": "/site"},
                           equal_to={"description": "/site/news/page"}, new_style=new_style)
        equal([d["description"] for d in both], ["/site/news", "/site/news/page"])


@per_generation()
def undo_and_undo_that(world, generation):
    server = world.server(generation)
    needs_undo(generation, server)
    a, b = world.client(generation, server), world.client(generation, server)
    oid, t1 = new_object(a, value=1)
    t2 = a.commit(h="a", changes=[[oid, t1, 2, 0]])
    b.wait_invalidated(h="a", oid=oid, tid=t2)
    equal(b.load(h="a", oid=oid)["value"], 2)

    t3, changed = undo_in(a, t2)
    equal(changed, [oid])
    b.wait_invalidated(h="a", oid=oid, tid=t3)
    for agent in (a, b):
        loaded = agent.load(h="a", oid=oid)
        equal((loaded["value"], loaded["tid"]), (1, t3))
    equal(a.load_before(h="a", oid=oid, before=t3)["value"], 2)

    t4, changed = undo_in(b, t3)
    equal(changed, [oid])
    a.wait_invalidated(h="a", oid=oid, tid=t4)
    for agent in (a, b):
        equal(agent.load(h="a", oid=oid)["value"], 2)
        equal(agent.get_tid(h="a", oid=oid), t4)
    equal([e["tid"] for e in a.history(h="a", oid=oid, size=10)], [t4, t3, t2, t1])
    # The next change starts from the undone state.
    t5 = a.commit(h="a", changes=[[oid, t4, 5, 0]])
    b.wait_invalidated(h="a", oid=oid, tid=t5)
    equal(b.load(h="a", oid=oid)["value"], 5)


@per_generation()
def undo_of_a_creation(world, generation):
    server = world.server(generation)
    needs_undo(generation, server)
    a, b = world.client(generation, server), world.client(generation, server)
    oid, t1 = new_object(a, value=1)
    equal(b.load(h="a", oid=oid)["value"], 1)
    t2, changed = undo_in(a, t1)
    equal(changed, [oid])
    b.wait_invalidated(h="a", oid=oid, tid=t2)
    for agent in (a, b):
        raises("POSKeyError", agent.load, h="a", oid=oid)
        raises("POSKeyError", agent.get_tid, h="a", oid=oid)
    t3, _ = undo_in(b, t2)
    a.wait_invalidated(h="a", oid=oid, tid=t3)
    equal(a.load(h="a", oid=oid)["value"], 1)


@per_generation()
def several_at_once(world, generation):
    """Back by three steps: each undo sees what the one before it has done."""
    server = world.server(generation)
    needs_undo(generation, server)
    a, b = world.client(generation, server), world.client(generation, server)
    x, t1 = new_object(a, value=1)
    y, u1 = new_object(a, value=1)
    t2 = a.commit(h="a", changes=[[x, t1, 2, 0]])
    t3 = a.commit(h="a", changes=[[x, t2, 3, 0], [y, u1, 3, 0]])
    t4 = a.commit(h="a", changes=[[x, t3, 4, 0]])
    equal(b.load(h="a", oid=x)["value"], 4)
    t5, changed = undo_in(a, t4, t3, t2)
    equal(changed, sorted([x, y]))
    b.wait_invalidated(h="a", oid=x, tid=t5)
    for agent in (a, b):
        equal([agent.load(h="a", oid=oid)["value"] for oid in (x, y)], [1, 1])
    # Back again in one step
    undo_in(b, t5)
    equal([b.load(h="a", oid=oid)["value"] for oid in (x, y)], [4, 3])


@per_generation()
def what_cannot_be_undone(world, generation):
    server = world.server(generation)
    needs_undo(generation, server, errors=True)
    a, b = world.client(generation, server), world.client(generation, server)
    oid, t1 = new_object(a, value=1)
    t2 = a.commit(h="a", changes=[[oid, t1, 2, 0]])
    t3 = a.commit(h="a", changes=[[oid, t2, 3, 0]])
    error = raises(UNDO_ERROR, undo_in, a, t2)
    check("later transaction" in error.answer["text"], error.answer["text"])
    error = raises(UNDO_ERROR, undo_in, a, t1)
    check("Can't undo an add" in error.answer["text"], error.answer["text"])
    error = raises(UNDO_ERROR, undo_in, a, "0123456789abcdef")
    check("Invalid transaction id" in error.answer["text"], error.answer["text"])
    # Nothing is left behind: neither changes nor locks.
    loaded = a.load(h="a", oid=oid)
    equal((loaded["value"], loaded["tid"]), (3, t3))
    t4 = b.commit(h="a", changes=[[oid, t3, 4, 0]])
    a.wait_invalidated(h="a", oid=oid, tid=t4)
    equal(undo_in(a, t4)[1], [oid])
    equal(a.load(h="a", oid=oid)["value"], 3)


@per_generation()
def undo_beside_stores(world, generation):
    """One transaction that undoes and stores."""
    server = world.server(generation)
    needs_undo(generation, server)
    a, b = world.client(generation, server), world.client(generation, server)
    x, t1 = new_object(a, value=1)
    y, u1 = new_object(a, value=1)
    z, v1 = new_object(a, value=1)
    t2 = a.commit(h="a", changes=[[x, t1, 2, 0]])
    a.begin(h="a")
    a.store(h="a", oid=y, serial=u1, value=2)
    a.undo(h="a", id=id_of(t2))
    if generation.age >= 310 or not server.program.is_python:
        a.store(h="a", oid=z, serial=v1, value=2)
    a.vote(h="a")
    tid = a.finish(h="a")
    b.wait_invalidated(h="a", oid=x, tid=tid)
    for agent in (a, b):
        equal([agent.load(h="a", oid=oid)["value"] for oid in (x, y, z)], [1, 2, 2])
        equal([agent.get_tid(h="a", oid=oid) for oid in (x, y, z)], [tid] * 3)


@per_generation()
def undo_given_up(world, generation):
    server = world.server(generation)
    needs_undo(generation, server)
    a, b = world.client(generation, server), world.client(generation, server)
    oid, t1 = new_object(a, value=1)
    t2 = a.commit(h="a", changes=[[oid, t1, 2, 0]])
    for voted in (False, True):
        a.begin(h="a")
        a.undo(h="a", id=id_of(t2))
        if voted:
            a.vote(h="a")
        a.abort(h="a")
        equal(b.load(h="a", oid=oid)["tid"], t2)
    a.begin(h="a")
    a.undo(h="a", id=id_of(t2))
    a.close(h="a")
    t3 = b.commit(h="a", changes=[[oid, t2, 3, 0]])
    equal(b.load(h="a", oid=oid)["tid"], t3)


@per_generation()
def an_undo_waits_for_who_has_voted(world, generation):
    server = world.server(generation)
    needs_undo(generation, server, errors=True)
    a, b = world.client(generation, server), world.client(generation, server)
    x, t1 = new_object(a, value=1)
    y, u1 = new_object(a, value=1)
    t2 = a.commit(h="a", changes=[[x, t1, 2, 0]])
    b.begin(h="a")
    b.store(h="a", oid=x, serial=t2, value=3)
    b.vote(h="a")
    outcome = []

    def undo():
        try:
            outcome.append(undo_in(a, t2))
        except Exception as error:
            outcome.append(error)

    waiting = threading.Thread(target=undo)
    waiting.start()
    waiting.join(0.3)
    equal(outcome, [], "it did not wait")
    b.finish(h="a")
    waiting.join(10)
    check(isinstance(outcome[0], Exception), "undone though it was changed", outcome)
    if generation.age >= 500 and not server.program.is_python:
        # Another object: nobody waits.
        b.begin(h="a")
        b.store(h="a", oid=y, serial=u1, value=2)
        b.vote(h="a")
        undo_in(a, a.undo_log(h="a", last=-1)[0]["tid"])
        b.finish(h="a")
        equal([a.load(h="a", oid=oid)["value"] for oid in (x, y)], [2, 2])


@per_generation()
def undo_through_a_database(world, generation):
    """What an undo page does, and what the connections of the same and other databases read afterwards."""
    server = world.server(generation)
    needs_undo(generation, server, errors=True)
    a = world.client(generation, server, watch=False)
    a.bootstrap(h="a")
    b = world.client(generation, server, watch=False)
    for agent in (a, b):
        agent.db_open(h="a")
    a.db_count(h="a", times=4)
    b.db_wait_counters(h="a", wanted=[4, 4])
    log = a.db_undo_log(h="a")
    a.db_undo(h="a", ids=[log[0]["id"]])
    for agent in (a, b):
        agent.db_wait_counters(h="a", wanted=[3, 3])
    a.db_undo(h="a", ids=[d["id"] for d in a.db_undo_log(h="a")[2:4]])
    for agent in (a, b):
        agent.db_wait_counters(h="a", wanted=[1, 1])
    b.db_count(h="a", times=2)
    a.db_wait_counters(h="a", wanted=[3, 3])
    # The databases of 3.8 and 3.9 cannot abort an undo that has failed.
    errors = UNDO_ERROR if generation.age >= 310 else ("NotImplementedError",)
    raises(errors, a.db_undo, h="a", ids=[log[2]["id"]])
    for agent in (a, b):
        agent.db_wait_counters(h="a", wanted=[3, 3])
    equal(a.db_count(h="a", times=1)["torn"], 0)


@all_together
def each_undoes_what_another_did(world):
    server = world.server()
    agents = everybody(world, server)
    order = list(agents.items())
    oid = order[0][1].new_oids(h="a", count=1)[0]
    tid = order[0][1].commit(h="a", changes=[[oid, Z64, 0, 0]])
    for (g1, writer), (g2, undoer) in zip(order, order[1:] + order[:1]):
        written = writer.commit(h="a", changes=[[oid, tid, 1, 0]], user=str(g1), description="change",
                                extension={"by": str(g1)})
        for generation, agent in agents.items():
            if agent is not writer:
                agent.wait_invalidated(h="a", oid=oid, tid=written)
            entry = agent.undo_log(h="a", first=0, last=1)[0]
            equal((entry["tid"], entry["more"]), (written, {"by": str(g1)}), f"what {generation} may undo")
            check(entry["text_keys"], f"{generation} has keys of another type")
        tid, changed = undo_in(undoer, written)
        equal(changed, [oid])
        for generation, agent in agents.items():
            if agent is not undoer:
                agent.wait_invalidated(h="a", oid=oid, tid=tid)
            loaded = agent.load(h="a", oid=oid)
            equal((loaded["value"], loaded["tid"]), (0, tid), f"what {generation} reads after {g2}'s undo")
    lengths = {len(agent.undo_log(h="a", first=0, last=100)) for agent in agents.values()}
    equal(lengths, {1 + 2 * len(order)})
