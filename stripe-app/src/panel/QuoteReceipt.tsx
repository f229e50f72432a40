/** A quote as a small receipt: what is due today and how it comes about, what follows, and what is gained and lost. */
import { Banner, Box, Divider, Inline } from "@stripe/ui-extension-sdk/ui";

import { nameOf, rateWords, type Formats } from "../format";
import { effectSentence, timingSentence, violationSentence } from "../quoteWords";
import type { Quote } from "../types";

export const QuoteReceipt = ({ quote, formats }: { quote: Quote; formats: Formats }) => {
  const { currency } = quote.due_today;
  const { onTop, included } = taxOf(quote);
  const credit = quote.credit?.amount_minor ? quote.credit : null;
  const lost = [
    ...quote.lost.map((effect) => effectSentence(effect, formats)),
    ...quote.ends.map((key) => `Ends with it: ${nameOf({ key })}`),
  ];
  const hasLines = quote.lines.length > 0 || onTop !== 0 || credit !== null;
  return (
    <Box css={{ stack: "y", rowGap: "medium" }}>
      <Box>{timingSentence(quote, formats)}</Box>
      {quote.violations.length > 0 ? (
        <Banner
          type="caution"
          title="Usage is above the new limits"
          description={`${quote.violations.map((one) => violationSentence(one, formats)).join("; ")}. Nothing is deleted; more is refused until usage is below.`}
        />
      ) : null}
      <Box css={{ stack: "y", rowGap: "xsmall" }}>
        {quote.lines.map((line, index) => (
          <Line
            key={`${index}:${line.description}`}
            text={line.description}
            amount={formats.money(line.amount_minor, currency)}
          />
        ))}
        {onTop ? <Line text="Tax" amount={formats.money(onTop, currency)} /> : null}
        {credit ? (
          // What is given back and not paid out: with it the column comes to what is due.
          <Line
            text="Kept as credit on the balance"
            amount={formats.money(credit.amount_minor, credit.currency)}
          />
        ) : null}
        {hasLines ? <Divider /> : null}
        <Line text="Due today" amount={formats.money(quote.due_today.amount_minor, currency)} isTotal />
        {included > 0 ? (
          <Box css={{ color: "secondary" }}>
            The prices above include {formats.money(included, currency)} tax.
          </Box>
        ) : null}
        <Box css={{ color: "secondary" }}>{nextSentence(quote, formats)}</Box>
        {quote.plus_usage.map(({ feature, name, price }) => (
          <Box key={feature} css={{ color: "secondary" }}>
            {name}: {rateWords(price, formats)}
          </Box>
        ))}
      </Box>
      <Effects title="Gained" sentences={quote.gained.map((effect) => effectSentence(effect, formats))} />
      <Effects title="Lost" sentences={lost} />
    </Box>
  );
};

const Line = ({ text, amount, isTotal = false }: { text: string; amount: string; isTotal?: boolean }) => (
  <Box css={{ stack: "x", distribute: "space-between", alignY: "baseline", columnGap: "small" }}>
    <Inline css={{ font: isTotal ? "bodyEmphasized" : "body", overflowWrap: "break-word" }}>{text}</Inline>
    <Inline css={{ font: isTotal ? "bodyEmphasized" : "body" }}>{amount}</Inline>
  </Box>
);

const Effects = ({ title, sentences }: { title: string; sentences: string[] }) =>
  sentences.length === 0 ? null : (
    <Box css={{ stack: "y", rowGap: "xsmall" }}>
      <Box css={{ font: "subheading" }}>{title}</Box>
      {sentences.map((sentence) => (
        <Box key={sentence}>{sentence}</Box>
      ))}
    </Box>
  );

/** Tax beside the lines, which come to what is due with it, and tax that is in them already. */
function taxOf(quote: Quote): { onTop: number; included: number } {
  const tax = quote.tax?.amount_minor ?? 0;
  if (tax === 0) return { onTop: 0, included: 0 };
  const lines = quote.lines.reduce((sum, line) => sum + line.amount_minor, 0);
  const onTop = quote.due_today.amount_minor - (quote.credit?.amount_minor ?? 0) - lines;
  return { onTop, included: tax - onTop };
}

function nextSentence(quote: Quote, formats: Formats): string {
  const usage = quote.plus_usage.length > 0;
  const next = quote.next_invoice;
  if (!next) return usage ? "Then usage alone is billed:" : "No further payments.";
  const amount = formats.money(next.amount_minor, next.currency);
  return `Next payment: ${amount} on ${formats.day(next.at)}${usage ? ", plus usage:" : "."}`;
}
