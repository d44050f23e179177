-- Orders of a made-up shop: sqlite3 shop.db < shop-orders.sql
CREATE TABLE orders (number TEXT PRIMARY KEY, customer TEXT NOT NULL, status TEXT NOT NULL, carrier TEXT, arrives_on TEXT);
INSERT INTO orders VALUES ('10023', 'ada', 'shipped', 'DHL', '2026-12-01');
INSERT INTO orders VALUES ('10024', 'ada', 'packed', NULL, '2026-12-03');
INSERT INTO orders VALUES ('10031', 'bob', 'delivered', 'UPS', '2026-11-20');
