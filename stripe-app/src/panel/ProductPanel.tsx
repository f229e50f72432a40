/** One product's panel: what its prices stand for, who holds them, and the way to map what stands for nothing. */
import { Badge, Box, Button, ContextView, Divider, Inline, Link } from "@stripe/ui-extension-sdk/ui";
import { Fragment, useState } from "react";

import { announce } from "../announce";
import type { Api } from "../api";
import { useProductPage } from "../exchange";
import { formatsFor, holdersWords, nameOf, priceWords, type Formats } from "../format";
import type { ProductPage, ProductPrice } from "../types";
import { MapForm } from "./MapForm";
import { Section } from "./Section";
import { Loading, Trouble } from "./Trouble";

export const ProductPanel = ({ api, product, locale }: { api: Api; product: string; locale: string }) => {
  const { answer, problem, isLoading, reload } = useProductPage(api, product);
  if (!answer) {
    return (
      <ContextView title="Plangate">
        {isLoading ? <Loading /> : problem ? <Trouble problem={problem} onRetry={reload} /> : null}
      </ContextView>
    );
  }
  return (
    <LoadedProduct
      api={api}
      page={answer}
      problem={problem}
      reload={reload}
      formats={formatsFor(locale, new Date())}
    />
  );
};

const LoadedProduct = ({
  api,
  page,
  problem,
  reload,
  formats,
}: {
  api: Api;
  page: ProductPage;
  problem: ReturnType<typeof useProductPage>["problem"];
  reload: () => void;
  formats: Formats;
}) => {
  // Null while nothing is being mapped; "" for every price that stands for nothing yet.
  const [mapping, setMapping] = useState<string | null>(null);
  const mayMap = page.role === "admin";
  const close = (done: string | null) => {
    setMapping(null);
    if (done === null) return;
    announce(done);
    reload();
  };
  return (
    <ContextView title={page.name} description={standing(page)}>
      {problem ? <Trouble problem={problem} onRetry={reload} /> : null}
      {page.unmapped.length > 0 ? (
        <Section title={unmappedTitle(page.unmapped.length, formats)}>
          <Box>
            Whoever subscribes to {page.unmapped.length === 1 ? "it" : "them"} keeps the last known plan, or
            has what companies without a subscription have.
          </Box>
          {mayMap ? (
            <Box>
              <Button
                type="primary"
                onPress={() => {
                  setMapping("");
                }}
              >
                Map to a plan or add-on
              </Button>
            </Box>
          ) : (
            <Box css={{ color: "secondary" }}>An admin of Plangate can map prices to a plan or add-on.</Box>
          )}
        </Section>
      ) : null}
      <Section title="Prices">
        {page.prices.length === 0 ? (
          <Box css={{ color: "secondary" }}>This product has no prices yet.</Box>
        ) : (
          page.prices.map((price, index) => (
            <Fragment key={price.id}>
              {index > 0 ? <Divider /> : null}
              <Price
                price={price}
                formats={formats}
                onChange={
                  mayMap && price.stands_for && !price.is_sold_here
                    ? () => {
                        setMapping(price.id);
                      }
                    : null
                }
              />
            </Fragment>
          ))
        )}
      </Section>
      {mapping !== null ? (
        <MapForm
          api={api}
          page={page}
          price={mapping === "" ? null : mapping}
          formats={formats}
          onClose={close}
        />
      ) : null}
    </ContextView>
  );
};

const Price = ({
  price,
  formats,
  onChange,
}: {
  price: ProductPrice;
  formats: Formats;
  onChange: (() => void) | null;
}) => (
  <Box css={{ stack: "y", rowGap: "xsmall" }}>
    <Box css={{ stack: "x", distribute: "space-between", alignY: "center", columnGap: "small" }}>
      <Inline css={{ font: "bodyEmphasized", overflowWrap: "break-word" }}>
        {priceWords(price, formats)}
      </Inline>
      <Badge type={price.stands_for ? "positive" : price.fault ? "neutral" : "warning"}>
        {stateWords(price)}
      </Badge>
    </Box>
    <Box css={{ stack: "x", distribute: "space-between", alignY: "baseline", columnGap: "small" }}>
      <Inline css={{ font: "caption", color: "secondary", overflowWrap: "break-word" }}>
        {details(price, formats)}
      </Inline>
      {onChange ? <Link onPress={onChange}>Change</Link> : null}
    </Box>
  </Box>
);

function standing(page: ProductPage): string {
  const stands = page.stands_for;
  if (!stands) return "Stands for no plan or add-on";
  return `Stands for the ${stands.kind === "plan" ? "plan" : "add-on"} ${stands.name}`;
}

function unmappedTitle(count: number, formats: Formats): string {
  return count === 1 ? "1 price stands for nothing" : `${formats.number(count)} prices stand for nothing`;
}

function stateWords(price: ProductPrice): string {
  if (price.stands_for) {
    const { name, feature } = price.stands_for;
    return feature ? `${name}: ${nameOf({ key: feature })}` : name;
  }
  return price.fault ? "Not for a plan" : "Not mapped";
}

function details(price: ProductPrice, formats: Formats): string {
  const parts = [holdersWords(price.companies, formats)];
  if (price.fault) parts.push(`it ${price.fault}`);
  else if (price.is_sold_here) parts.push("sold by the catalogue");
  else if (price.stands_for) parts.push("mapped by hand");
  if (!price.is_active) parts.push("archived in Stripe");
  return parts.join(", ");
}
