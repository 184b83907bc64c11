import socket

from oracle.clients.edge.sandbox.wan import Endpoint, endpoints, ruleset


def test_urls_give_addresses_and_ports_by_their_scheme(monkeypatch):
    def resolve(host, port, type):
        return [(socket.AF_INET, type, 6, "", ("192.0.2.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    urls = ["https://hub.example/x", "http://hub.example", "https://hub.example:8443"]
    assert endpoints(urls) == [
        Endpoint("192.0.2.1", 80),
        Endpoint("192.0.2.1", 443),
        Endpoint("192.0.2.1", 8443),
    ]


def test_the_same_endpoints_give_the_same_rules():
    first, second = Endpoint("192.0.2.1", 443), Endpoint("2001:db8::1", 443)
    text = ruleset([first, second])
    assert text == ruleset([first, second])
    assert "ip daddr . tcp dport { 192.0.2.1 . 443 } accept" in text
    assert "ip6 daddr . tcp dport { 2001:db8::1 . 443 } accept" in text
    assert text.count("policy drop;") == 3


def test_without_an_endpoint_nothing_leaves():
    text = ruleset([])
    assert "daddr" not in text
    assert "saddr" not in text
    assert text.startswith("table inet rapha_edge\ndelete table inet rapha_edge\n")
